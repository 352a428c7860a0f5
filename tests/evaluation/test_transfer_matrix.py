"""Transfer matrices: the figures of single transfer attacks, each image attacked once on each model, and resuming."""

import copy
import json

import pytest
import torch
from support.sets import make_data
from support.tiny import make_model, make_processor

from hf_pmgaft import RetrievalDataset, evaluate_robustness
from hf_pmgaft.evaluation import TransferReport, transfer_matrix
from hf_pmgaft.evaluation.intervals import wilson_interval

PGD = {"attack": "pgd", "eps": "16/255", "num_steps": 2, "loss": "ce"}
FGSM = {"attack": "fgsm", "eps": "16/255"}
SMALL = {**FGSM, "eps": "8/255"}
ATTACKS = [PGD, FGSM, SMALL]
THREAT = "linf 16/255"


@pytest.fixture(scope="module")
def models(fitted):
    """The fitted model, one near it with statistics of its own, and one that knows nothing."""
    near, processor = copy.deepcopy(fitted[0]), copy.deepcopy(fitted[1])
    processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in near.vision_model.parameters():
            parameter += 0.2 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return {"fitted": fitted, "near": (near, processor), "random": (make_model(seed=5), make_processor())}


@pytest.fixture(scope="module")
def small(fitted):
    return make_data(fitted[1], 16)


@pytest.fixture(scope="module")
def report(models, small) -> TransferReport:
    return transfer_matrix(models, [small], ATTACKS, progress=False)


def test_a_cell_is_the_figure_of_that_transfer_attack(models, small, report):
    """Each model in turn as source, of others and of itself, by the any-iterate verdict of an evaluation."""
    for source, pair in models.items():
        attacks = [{**attack, "source": source} for attack in ATTACKS]
        for target in models:
            options = {"sources": {source: pair}, "progress": False, "probes": False}
            (result,) = evaluate_robustness(*models[target], [small], attacks, **options).sets
            assert result.clean_accuracy == report.clean_accuracy(target)
            for threat in report.threats:
                found = report.accuracy(source, target, threat)
                assert found == pytest.approx(result.threats[f"{threat} from {source}"])
    cells = {(source, target): report.accuracy(source, target) for source in models for target in models}
    assert len(set(cells.values())) > 3  # so that no two models can be mistaken for each other
    assert cells["near", "near"] < cells["random", "near"] <= report.clean_accuracy("near")


def test_the_diagonal_is_the_white_box_attack_to_its_end(models, small, report):
    (result,) = evaluate_robustness(
        *models["fitted"], [small], [PGD, FGSM], verdict="last_iterate", progress=False, probes=False
    ).sets
    expected = map(min, result.verdicts["robust"], result.verdicts["clean"])
    assert report.sets[0].right[THREAT]["fitted"]["fitted"] == list(expected)


def test_each_image_is_attacked_once_on_each_model_and_judged_by_all(small, attacked):
    models = {str(seed): (make_model(seed=seed), make_processor()) for seed in (5, 6)}
    report = transfer_matrix(models, [small], [{"attack": "patch", "size": 4, "num_steps": 1}], progress=False)
    (found,) = report.sets
    candidates = sum(map(max, *found.clean.values()))
    assert 0 < candidates < 16  # what all have wrong is left out
    assert [len(each.images) for each in attacked] == [candidates, candidates]  # on one model, and on the other
    for row in range(16):
        if not max(found.clean["5"][row], found.clean["6"][row]):
            assert all(right[row] == 0 for cells in found.right["patch 4x4"].values() for right in cells.values())


def test_nothing_depends_on_batches(models, small, report):
    assert transfer_matrix(models, [small], ATTACKS, progress=False, batch_size=7) == report


def test_a_run_that_was_killed_goes_on_with_the_same_report(models, small, report, tmp_path, monkeypatch):
    file = tmp_path / "found.jsonl"
    transfer_matrix(models, [small], ATTACKS, progress=False, verdict_file=file, batch_size=8)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))
    assert transfer_matrix(models, [small], ATTACKS, progress=False, verdict_file=file) == report
    written = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    rows = [(line["attack"], row) for line in written for row in line["rows"]]
    assert len(rows) == len(set(rows))

    others = {**models, "random": (make_model(seed=6), make_processor())}
    with pytest.raises(ValueError, match="differs in models.random.fingerprint"):
        transfer_matrix(others, [small], ATTACKS, progress=False, verdict_file=file)


def test_tables_have_intervals_and_files_come_back(report, tmp_path):
    header, clean, *rows = report.rows()
    assert header == [f"{THREAT} made on", "fitted", "near", "random"] and clean[0] == "no attack"
    assert [row[0] for row in rows] == ["fitted", "near", "random"]
    value = report.accuracy("fitted", "near")
    low, high = wilson_interval(value, 16)
    assert rows[0][2] == f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert report.threats == [THREAT, "linf 8/255"] and report.rows("linf 8/255") != report.rows()
    assert "PGD-2 ce linf 16/255" in report.statement[0]

    report.save(tmp_path / "report.json")
    assert TransferReport.load(tmp_path / "report.json") == report
    entry = json.loads((tmp_path / "report.json").read_text())
    assert entry["mean_accuracy"][THREAT]["fitted"]["near"] == value
    entry["protocol"]["seed"] = 9
    (tmp_path / "report.json").write_text(json.dumps(entry))
    with pytest.raises(ValueError, match="was changed"):
        TransferReport.load(tmp_path / "report.json")


def test_the_protocol_has_attacks_and_sets_and_models_stand_beside_it(models, small, report):
    assert [entry["attack"] for entry in report.protocol["attacks"]] == ["pgd", "fgsm", "fgsm"]
    assert report.protocol["sets"]["own"]["images"]
    assert report.models["near"]["image_mean"] == [0.4, 0.5, 0.6] and report.models["near"]["image_size"] == 16
    swapped = transfer_matrix(dict(reversed(models.items())), [small], [FGSM], progress=False)
    fewer = transfer_matrix({name: models[name] for name in ("fitted", "near")}, [small], [FGSM], progress=False)
    assert swapped.protocol_hash == fewer.protocol_hash != report.protocol_hash
    assert swapped.accuracy("near", "fitted") == fewer.accuracy("near", "fitted")


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ([], "no attacks"),
        (["corruption,kind=jpeg,severity=3"], "looks at no model"),
        (["fgsm,eps=4/255,source=other"], "each model is a source in turn"),
        (["fgsm,eps=4/255,attacker=through"], "none is defended"),
    ],
)
def test_attacks_that_have_no_source_are_refused(models, small, attacks, message):
    with pytest.raises(ValueError, match=message):
        transfer_matrix(models, [small], attacks)


def test_what_cannot_be_compared_is_refused(models, fitted, small):
    with pytest.raises(ValueError, match=r"models \['fitted'\], between which nothing transfers"):
        transfer_matrix({"fitted": fitted}, [small])
    with pytest.raises(TypeError, match="The model 'tower': "):
        transfer_matrix({"fitted": fitted, "tower": (fitted[0].vision_model, fitted[1])}, [small])
    with pytest.raises(ValueError, match="no sets"):
        transfer_matrix(models, [])
    with pytest.raises(ValueError, match="share a name"):
        transfer_matrix(models, [small, small])
    captions = RetrievalDataset.__new__(RetrievalDataset)
    captions.name = "captions"
    with pytest.raises(ValueError, match="'captions' has no class per image"):
        transfer_matrix(models, [captions])
