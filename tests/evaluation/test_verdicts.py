"""Verdicts on file: nothing lost, nothing mixed."""

import copy
import signal
import subprocess
import sys
import time
from contextlib import closing

import datasets
import pytest
import torch
from support.disk import full_disk
from support.launch import environment
from support.sets import CE, MARGIN
from support.tiny import make_images

from hf_pmgaft import RobustnessReport, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.evaluation.outcomes import worst_case
from hf_pmgaft.evaluation.verdicts import Verdicts


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), **{"progress": False, **options})


def test_the_worst_case_is_right_every_time():
    assert worst_case([True, True, False], [True, False, True], [True, True, True]) == [True, False, False]
    assert worst_case([1, 0]) == [True, False]
    with pytest.raises(ValueError):
        worst_case([True], [True, False])


def test_verdicts_of_all_processes_are_read_and_each_appends_to_a_file_of_its_own(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    for rank in (0, 1):
        verdicts = Verdicts(file, {"seed": 0}, rank)
        verdicts.add("food", "clean", [rank], [1])
        verdicts.close()
    again = Verdicts(file, {"seed": 0})
    assert again.of("food", "clean") == {0: 1, 1: 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verdicts.jsonl", "verdicts.jsonl-1"]


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdicts = Verdicts(None, {"seed": 0})
    verdicts.add("food", "clean", [3], [1])
    verdicts.close()
    assert verdicts.of("food", "clean") == {3: 1} and list(tmp_path.iterdir()) == []


def test_a_file_cut_off_anywhere_is_gone_on_with(fitted, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    whole = run(fitted, data, [MARGIN, CE], batch_size=8, verdict_file=file).to_dict()
    content = file.read_bytes()
    lines = content.count(b"\n")
    assert lines > 8
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in (0, 10, ends[0], ends[0] + 1, ends[2] + 1, ends[3] + 7, ends[-2] - 1, len(content)):
        file.write_bytes(content[:cut])
        assert run(fitted, data, [MARGIN, CE], batch_size=16, verdict_file=file).to_dict() == whole
        again = file.read_bytes()
        assert run(fitted, data, [MARGIN, CE], verdict_file=file).to_dict() == whole
        assert file.read_bytes() == again  # nothing was left to do


def test_verdicts_on_file_are_not_made_again(fitted, data, tmp_path, attacked):
    file = tmp_path / "verdicts.jsonl"
    whole = run(fitted, data, verdict_file=file).to_dict()
    assert attacked
    attacked.clear()
    assert run(fitted, data, verdict_file=file).to_dict() == whole
    assert attacked == []


KILLED = """
import sys
import torch
from support.sets import MARGIN, make_data
from support.tiny import make_processor
from transformers import CLIPModel
from hf_pmgaft import evaluate_robustness
torch.set_num_threads(1)
processor = make_processor()
model = CLIPModel.from_pretrained(sys.argv[1])
slow = {**MARGIN, "num_steps": 60, "step_size": "1/255"}
evaluate_robustness(model, processor, [make_data(processor)], [slow], batch_size=2, verdict_file=sys.argv[2])
"""


def test_a_run_that_was_killed_ends_with_the_same_report(fitted, data, tmp_path):
    fitted[0].save_pretrained(tmp_path / "model")
    file = tmp_path / "verdicts.jsonl"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model"), str(file)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 45) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = file.read_bytes().count(b"\n")
    slow = {**MARGIN, "num_steps": 60, "step_size": "1/255"}
    resumed = run(fitted, data, [slow], batch_size=2, verdict_file=file)
    assert 40 < before < file.read_bytes().count(b"\n")
    assert resumed.to_dict() == run(fitted, data, [slow], batch_size=2).to_dict()


def test_a_disk_that_fills_keeps_what_was_judged(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    verdicts = Verdicts(file, {"seed": 0})
    with full_disk(1_000), pytest.raises(OSError, match=f"^{tmp_path} cannot be written to .*MB are free"):
        with closing(verdicts):
            for row in range(100):
                verdicts.add("food", "clean", [row], [1])
    kept = Verdicts(file, {"seed": 0}).of("food", "clean")
    assert 5 < len(kept) < 50 and kept == dict.fromkeys(range(len(kept)), 1)


def test_a_file_of_another_evaluation_or_model_is_refused(fitted, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    run(fitted, data, verdict_file=file)
    with pytest.raises(ValueError, match="another evaluation: it differs in protocol.seed"):
        run(fitted, data, verdict_file=file, seed=1)
    other = copy.deepcopy(fitted[0])
    with torch.no_grad():
        other.visual_projection.weight.mul_(1.01)
    with pytest.raises(ValueError, match="differs in model.fingerprint"):
        run((other, fitted[1]), data, verdict_file=file)
    file.write_text("no verdicts\n")
    with pytest.raises(ValueError, match="holds no verdicts"):
        run(fitted, data, verdict_file=file)


def test_a_file_with_verdicts_on_other_images_is_refused(fitted, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    run(fitted, data, verdict_file=file)
    last_two = datasets.concatenate_datasets([make_images(38, seed=9), make_images(2, seed=1)])
    for images, row in ((make_images(40, seed=10), 0), (last_two, 38)):
        other = ZeroShotDataset(images, fitted[1], None, "a photo of the {}", name="own")
        with pytest.raises(ValueError, match=f"other images or labels of 'own': row {row} differs"):
            run(fitted, other, verdict_file=file)
