"""The benchmark compares like with like: the loops it measures give the same verdicts."""

import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import benchmark

    yield benchmark
    sys.modules.pop("benchmark")


def test_evaluate_prints_the_ways_and_their_equal_verdicts(benchmark, tmp_path, capsys):
    pytest.importorskip("pyautoattack")
    file = tmp_path / "out.json"
    flags = ["--images", "16", "--batch_size", "8", "--num_steps", "4", "--apgd_steps", "4", "--repeats", "2"]
    benchmark.main(["evaluate", *flags, "--output_file", str(file)])
    printed = capsys.readouterr().out
    written = json.loads(file.read_text())
    names = ("plain loop", "loop, text cached", "evaluate_robustness", "pyautoattack's runner")
    for name in names[:3]:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[-1] == "0"  # verdicts that differ
    assert all(len(written["seconds"][name]) == 2 and min(written["seconds"][name]) > 0 for name in names)
    shares = {written["robust"][name] for name in names[:3]}
    assert len(shares) == 1 and 0 < shares.pop() < 0.6  # some stand, some fall


def test_verdicts_that_differ_are_counted(benchmark, monkeypatch, capsys):
    pytest.importorskip("pyautoattack")
    plain = benchmark.EvaluateBenchmark.loop

    def cheat(self, classify):
        return [1 - verdict for verdict in plain(self, classify)]

    monkeypatch.setattr(benchmark.EvaluateBenchmark, "loop", cheat)
    flags = ["--images", "8", "--batch_size", "8", "--num_steps", "2", "--apgd_steps", "2", "--repeats", "1"]
    benchmark.main(["evaluate", *flags])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("plain loop")]
    assert line.split()[-1] == "8"


@pytest.mark.slow
def test_scale_times_one_process_and_two(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    file = tmp_path / "out.json"
    flags = ["--models", "embedded default", "--steps", "2", "--repeats", "1", "--engines", "ddp"]
    benchmark.main(["scale", *flags, "--output_file", str(file)])
    ways = json.loads(file.read_text())["medians"]["embedded default"]
    assert list(ways) == ["one process", "two processes", "one, half the batch", "two, no exchange"]
    assert min(ways.values()) > 0
    assert all(name in capsys.readouterr().out for name in ["one process / this"])
