"""Several processes share an evaluation: the report is that of one, and no image is judged twice or left out."""

import random
import shutil
import signal
from collections import Counter

import pytest
import torch
from support.processes import Group
from support.shared_evaluation import (
    CERTIFIED,
    KINDS,
    MADE_BEFORE,
    MATRIX,
    SIZE,
    evaluate,
    evaluate_again_after_an_error,
    evaluate_broken,
    evaluate_slowly,
    goes_before,
    judged,
    lines,
    measure_further,
    reports,
)
from support.tiny import fit_model, make_images, make_model, make_processor

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.evaluation import train_universal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the weights of a model that has learned its set."""
    folder = tmp_path_factory.mktemp("shared")
    torch.save(fit_model()[0].state_dict(), folder / "fitted.pt")
    return folder


def run(root, name: str, processes: int, function=evaluate, **options):
    folder = root / name
    folder.mkdir()
    Group(processes, function, folder, *options.values(), log=folder).run()
    return folder


@pytest.fixture(scope="module")
def alone(root):
    return run(root, "alone", 1)


def check_same(folder, alone, processes: int) -> None:
    for kind in KINDS:
        assert reports(folder, kind) == reports(alone, kind) * processes
        counts = {key: Counter(dict.fromkeys(rows, 1)) for key, rows in judged(alone, kind).items()}
        assert judged(folder, kind) == counts


def test_one_process_judges_each_image_once(alone):
    for kind in KINDS:
        assert 0 < reports(alone, kind)[0]["mean_robust_accuracy"] < reports(alone, kind)[0]["mean_clean_accuracy"]
        counts = judged(alone, kind)
        assert counts["clean"] == Counter(dict.fromkeys(range(SIZE), 1))
        assert all(set(of_key.values()) == {1} for of_key in counts.values())


@pytest.mark.parametrize(("processes", "workers"), [(2, 1), (3, 0)])
def test_several_processes_report_what_one_reports(root, alone, processes, workers):
    folder = run(root, f"of {processes}", processes, workers=workers)
    check_same(folder, alone, processes)
    assert len([*folder.glob("any iterate.jsonl*")]) == processes


def test_certificates_and_images_that_were_made_before_are_those_of_one_process(root):
    model, processor = make_model(), make_processor()
    model.load_state_dict(torch.load(root / "fitted.pt", weights_only=True))
    others = ZeroShotDataset(make_images(16, seed=2), processor, None, "a photo of the {}", name="others")
    noise = train_universal(model, processor, others, eps="40/255", epochs=3, batch_size=8, progress=False)
    noise.save(root / "noise.safetensors")

    alone = run(root, "further alone", 1, measure_further)
    folder = run(root, "further", 2, measure_further)
    for kind in (MADE_BEFORE, CERTIFIED, MATRIX):
        assert reports(folder, kind) == reports(alone, kind) * 2
        counts = {key: Counter(dict.fromkeys(rows, times(kind))) for key, rows in judged(alone, kind).items()}
        assert judged(folder, kind) == counts
        assert len([*folder.glob(f"{kind}.jsonl*")]) == 2

    (made,), (certified, _), (matrix,) = (reports(alone, kind)[0]["sets"] for kind in (MADE_BEFORE, CERTIFIED, MATRIX))
    assert len(made["threats"]) == 2 and all(0 < figure < 1 for figure in made["threats"].values())
    assert 0 < certified["certified_accuracy"]["0.2"] <= 1
    assert 0 < sum(matrix["right"]["linf 20/255"]["other"]["fitted"]) < SIZE


def times(kind: str) -> int:
    """How often a row of an image has an entry: once for each set that holds it."""
    return 2 if kind == CERTIFIED else 1


@pytest.mark.parametrize("seed", range(2))
def test_what_killed_processes_have_judged_is_not_judged_again(root, alone, seed):
    killed = root / f"killed {seed}"
    killed.mkdir()
    moment = random.Random(seed).randrange(1, len(lines(alone)))
    group = Group(2, evaluate, killed, log=killed)
    group.kill_when(lambda: len(lines(killed)) >= moment)
    assert group.wait(0) == [-signal.SIGKILL] * 2, group.errors()
    before = {kind: judged(killed, kind) for kind in KINDS}

    for processes in (3, 1):
        folder = root / f"resumed {seed} by {processes}"
        shutil.copytree(killed, folder)
        Group(processes, evaluate, folder, log=folder).run()
        for kind in KINDS:
            assert reports(folder, kind)[-processes:] == reports(alone, kind) * processes
            after = judged(folder, kind)
            assert {key: set(rows) for key, rows in after.items()} == {
                key: set(rows) for key, rows in judged(alone, kind).items()
            }
            for key, rows in after.items():
                twice = {row for row, count in rows.items() if count > 1}
                assert not twice or (goes_before(key) and twice <= set(before[kind][key]))


def test_an_image_that_cannot_be_read_ends_all_processes(root):
    folder = root / "broken"
    folder.mkdir()
    group = Group(2, evaluate_broken, folder, log=folder)
    assert group.wait(60) == [1, 1]  # without a launcher that would end them
    errors = [(folder / f"error-{rank}.txt").read_text() for rank in (0, 1)]
    assert ["row 13 is broken" in error for error in errors].count(True) == 1
    assert ["Another process" in error for error in errors].count(True) == 1


def test_who_is_done_waits_for_longer_than_collectives_do(root, alone):
    folder = root / "slow"
    folder.mkdir()
    Group(2, evaluate_slowly, folder, 8.0, log=folder, timeout=4).run()
    assert reports(folder, "any iterate") == reports(alone, "any iterate") * 2


def test_a_process_that_begins_anew_while_others_go_on_is_an_error_of_all(root):
    folder = root / "again"
    folder.mkdir()
    group = Group(2, evaluate_again_after_an_error, folder, log=folder)
    assert group.wait(120) == [1, 1]
    assert "Another process" in (folder / "error-1.txt").read_text()
