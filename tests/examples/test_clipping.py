"""What clipping does: figures of a run, the table over seeds, and that finished runs are kept."""

import importlib
import json

import pytest


@pytest.fixture
def clipping():
    return importlib.import_module("clipping")


def run(norm, seed, robust):
    figures = {"clean": 80.0, "moved": 0.1, "clipped": float(norm > 0), "grad_norm": 8.0}
    return {"max_grad_norm": norm, "seed": seed, "robust": robust, **figures}


def test_table_has_a_row_per_norm_with_spreads_over_seeds(clipping):
    lines = clipping.table([run(1, 0, 20.0), run(0, 0, 30.0), run(1, 1, 22.0)])

    assert lines[2] == "| 1 | 2 | 80.0 ± 0.0 | 21.0 ± 1.4 | 0.100 ± 0.000 | 1.00 ± 0.00 | 8.0 ± 0.0 |"
    assert lines[3] == "| 0 | 1 | 80.0 | 30.0 | 0.100 | 0.00 | 8.0 |"


def test_finished_runs_are_kept_and_those_of_another_budget_are_not_mixed_in(clipping, tmp_path, monkeypatch, capsys):
    made = []

    def measured(norm, seed, flags):
        made.append((norm, seed))
        return run(norm, seed, 1)

    monkeypatch.setattr(clipping, "measured", measured)
    file = tmp_path / "new" / "clipping.json"

    clipping.main(["--seeds", "0", "--file", str(file)])
    clipping.main(["--seeds", "0", "1", "--file", str(file)])

    assert made == [(1, 0), (0, 0), (1, 1), (0, 1)]
    assert json.loads(file.read_text())["table"] == capsys.readouterr().out.splitlines()[-4:]
    with pytest.raises(SystemExit, match="another budget"):
        clipping.main(["--file", str(file), "--", "--max_steps", "3"])


@pytest.mark.slow
def test_unclipped_weights_move_further(clipping):
    flags = ["--max_steps", "2", "--eval_max_samples", "2", "--eval_num_steps", "1", "--use_cpu", "true"]
    flags += ["--lr_scheduler_type", "constant", "--warmup_steps", "0"]

    clipped, free = (clipping.measured(norm, 0, flags) for norm in (1, 0))

    assert (clipped["clipped"], free["clipped"], clipped["steps"]) == (1, 0, 2)
    assert clipped["moved"] < clipping.LEARNING_RATE * 3 < free["moved"]  # momentum: 1, then at most 1.9 of them
    assert free["grad_norm"] > 2 and len(free["sets"]) == 8
