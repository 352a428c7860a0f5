"""The benchmark compares like with like: the loops it measures give the same verdicts."""

import gc
import json
import re
import statistics
import sys

import pytest
import torch
import torch.nn.functional as F
from support.paths import EXAMPLES

from hf_pmgaft.attacks import sample_seeds, uniform_noise


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "speed"))
    import benchmark

    yield benchmark
    for name in [name for name in sys.modules if name.partition(".")[0] in ("benchmark", "benchmarks")]:
        sys.modules.pop(name)


CASE = {"model": "embedded default", "tuning": "full", "prompts": 160, "num_steps": 2, "batch_size": 8}


@pytest.mark.parametrize("method", ["tecoa", "pmg_aft", "fare"])
def test_the_bare_loop_takes_the_same_step_as_the_trainer(benchmark, tmp_path, monkeypatch, method):
    from benchmarks.steps import Bare, Ours

    ours = Ours({**CASE, "method": method}, str(tmp_path))
    seeds = sample_seeds(ours.trainer.args.seed, 0, ours.batch["sample_id"])
    bare = Bare({**CASE, "method": method}, ours.batch)
    monkeypatch.setattr(torch, "rand_like", lambda images: uniform_noise(seeds, images.shape[1:]))
    before = {name: value.clone() for name, value in bare.model.state_dict().items()}
    ours.step()
    bare.step()
    after = ours.trainer.model.state_dict()
    moved = {name for name, value in bare.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(not name.startswith("text") for name in moved)
    # The first step of AdamW is one of signs, which round-off decides where the gradient is nothing.
    steps = torch.cat([(value - before[name]).flatten() for name, value in bare.model.state_dict().items()])
    expected = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert ((steps - expected).abs() < 1e-6).float().mean() > 0.99


@pytest.mark.parametrize("precision", [[], pytest.param(["--bf16"], marks=pytest.mark.slow)], ids=["float32", "bf16"])
def test_step_prints_a_line_for_each_way_and_each_part(benchmark, tmp_path, capsys, precision):
    from benchmarks.step import OPERATORS

    file = tmp_path / "out.json"
    flags = ["--models", "embedded default", "--tunings", "full", "--methods", "tecoa", "--batch_size", "2"]
    benchmark.main(["step", *flags, *precision, "--repeats", "1", "--no-memory", "--output_file", str(file)])
    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    (case,) = written["cases"]
    ways = ["plain", "plain, text cached", "ours", "bare loop"]
    assert case["bf16"] == (", bf16" in printed) == bool(precision)
    assert list(case["seconds"]) == ways and list(case["medians"]) == [*ways, "limit"]
    assert all(f"\n  {way} " in printed for way in case["medians"])
    flop = case["flop"]
    assert flop["plain"] > flop["plain, text cached"] > flop["bare loop"] == flop["ours"] == flop["limit"]
    assert case["medians"]["limit"] == flop["limit"] / case["peak_flop_per_second"]
    assert sum(case["parts"].values()) == pytest.approx(1)
    assert {"attack", "adversarial pass", "backward", "optimizer", "data", "rest"} == set(case["parts"])  # no teacher
    assert sum(case["operators"].values()) == pytest.approx(1) and "and by operators" in printed
    # Before torch 2.8 Adam on a CPU is made of common operators.
    assert set(case["operators"]) | {"optimizer"} == {*OPERATORS}
    assert {"processor", "instruction_sets", "threads"} <= set(written["machine"])


def test_operators_are_told_apart(benchmark):
    from benchmarks.step import time_operators

    image, weight = torch.rand(64, 256), torch.rand(256, 512)
    product = time_operators(lambda: [image @ weight for _ in range(50)])
    norm = time_operators(lambda: [F.layer_norm(image, (256,)) for _ in range(50)])
    assert set(product) - set(norm) == {"products"} and set(norm) - set(product) == {"layer norm"}


def test_seconds_of_a_part_are_without_those_of_parts_within_it(benchmark):
    from benchmarks.step import Stopwatch

    stopwatch = Stopwatch(iter([0.0, 1.0, 3.0, 10.0]).__next__)
    with stopwatch.part("outer"), stopwatch.part("inner"):
        pass
    assert stopwatch.seconds == {"outer": 8.0, "inner": 2.0}


def test_saved_activations_are_counted_once_and_until_their_graph_goes(benchmark):
    from benchmarks.step import SavedActivations

    layer = torch.nn.Linear(250, 250, bias=False)
    with (saved := SavedActivations(layer)):
        x = torch.ones(4, 250, requires_grad=True)
        loss = (layer(x) + layer(x)).sum()  # which save x, twice, and the layer's own weight
        assert saved.now == saved.peak == 4 * 250 * 4
        loss.backward()
        del loss
        gc.collect()
    assert saved.now == 0 and saved.peak == 4 * 250 * 4


def test_data_prints_the_rate_beside_the_need(benchmark, capsys):
    flags = ["--models", "embedded default", "--workers", "0", "--repeats", "1", "--epochs", "1"]
    benchmark.main(["data", *flags, "--batch_size", "2"])
    decoded, kept = [line for line in capsys.readouterr().out.splitlines() if line.startswith("emoji, parquet")]
    assert "images kept" in kept
    assert all(float(figure) > 0 for line in (decoded, kept) for figure in line.split()[-3:])


def test_reading_prints_a_line_for_each_number_of_workers(benchmark, tmp_path, capsys):
    file = tmp_path / "out.json"
    flags = ["--model", "embedded default", "--images", "6", "--batch_size", "2", "--repeats", "1"]
    benchmark.main(["reading", *flags, "--workers", "0", "1", "--output_file", str(file)])
    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    assert [line.split()[0] for line in printed.splitlines()[2:4]] == ["0", "1"] and "times 1" in printed
    assert all(run["images_per_second"] > 0 for runs in written["reading"].values() for run in runs)
    assert "images/s in PGD-50" in printed and written["judged_per_second"]["a clean pass"] > 0


def test_the_tower_alone_is_set_beside_answers_at_each_radius(benchmark, tmp_path, capsys):
    file = tmp_path / "out.json"
    flags = ["--images", "3", "--num_steps", "2", "--eps", "0", "8/255", "--repeats", "1", "--output_file", str(file)]
    benchmark.main(["tower", *flags])
    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    attacks = ["answers", "tower, cosine", "tower, l2"]
    assert re.findall(r"^8/255\s+(\S+(?: \S+)?)  ", printed, re.M) == attacks == [*written["radii"]["8/255"]]
    assert f"VQA accuracy of 3 questions, clean: {written['clean']:.1%}" in printed
    seconds = [statistics.median(cell["cpu_seconds"]) for cell in written["radii"]["8/255"].values()]
    assert re.findall(r"^8/255 .* (\S+)$", printed, re.M) == [f"{each / seconds[0]:.2f}" for each in seconds]
    assert {cell["vqa_accuracy"] for cell in written["radii"]["0"].values()} == {written["clean"]}
    assert all(cell["cpu_seconds"][0] > 0 for cell in written["radii"]["8/255"].values())


def test_photographs_of_the_benchmark_are_of_the_size_of_photographs(benchmark, tmp_path):
    from benchmarks.reading import photographs

    args = benchmark.parse(["reading", "--images", "2", "--model", "embedded default"])
    data = photographs(tmp_path, args)
    assert data[1]["images"].shape == (3, 40, 40) and not torch.equal(data[0]["images"], data[1]["images"])
    assert all(50_000 < file.stat().st_size < 150_000 for file in tmp_path.glob("*.jpg"))


def test_pictures_of_the_benchmark_are_what_a_processor_makes(benchmark, processor):
    from benchmarks.data import jpegs
    from benchmarks.steps import noise_images

    from hf_pmgaft.data import Collator

    batch = Collator(processor, 2)(noise_images(4, 2, processor))
    assert batch["pixel_values"].shape == (4, 3, 16, 16) and batch["labels"].tolist() == [0, 1, 0, 1]
    assert [row["image"].size for row in jpegs(2)] == [(304, 224)] * 2


def test_memory_fits_a_line_through_the_peaks_of_each_case(benchmark, tmp_path, capsys, monkeypatch):
    from benchmarks import memory

    def measure(args, task):
        size = task["batch_size"] * (1 if task["gradient_checkpointing"] else 4)
        return {"peak": (100 + size) * 2**20, "saved": (7 + size) * 2**20}

    monkeypatch.setattr(memory, "run_worker", measure)
    file = tmp_path / "out.json"
    flags = ["--models", "ViT-B/32", "--tunings", "full", "lora", "--batch_sizes", "2", "5", "9", "--gib", "2"]
    benchmark.main(["memory", *flags, "--no-bf16", "--output_file", str(file)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ViT-B/32")]
    assert [line.partition("  ")[0] for line in lines] == [
        f"ViT-B/32 {tuning}, fp32{again}" for tuning in ("full", "lora") for again in ("", ", checkpointing")
    ]
    # (2 GiB - 100 MiB) / 4 MiB an image
    assert lines[0].split()[-5:] == ["100.0", "4.0", "4.0", "256", "487"]
    assert lines[1].split()[-5:] == ["100.0", "1.0", "1.0", "1024", "1948"]
    assert [len(case["measured"]) for case in json.loads(file.read_text())["cases"]] == [3] * 4


def test_memory_of_a_run_is_that_of_its_second_step(benchmark, capsys):
    task = {**CASE, "method": "pmg_aft", "device": "cpu", "bf16": False}
    found = {}
    for again in (False, True):
        benchmark.main(["memory", "--worker", json.dumps({**task, "gradient_checkpointing": again})])
        found[again] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < found[True]["saved"] < 0.7 * found[False]["saved"]
    assert found[False]["peak"] > 0


def test_slopes_fit_a_line_through_steps_that_grow(benchmark, tmp_path, capsys, monkeypatch):
    from benchmarks import slopes

    assert slopes.fit([1, 2, 4], [5.0, 7.0, 11.0]) == pytest.approx({"slope": 2, "intercept": 3, "r": 1})
    monkeypatch.setitem(slopes.BASE, "batch_size", 4)
    monkeypatch.setitem(slopes.AXES, "num_steps", ([1, 8], 1, "attack step"))
    monkeypatch.setitem(slopes.AXES, "prompts", ([100, 200], 100, "100 classes"))
    file = tmp_path / "out.json"
    flags = ["--axes", "num_steps", "prompts", "--repeats", "1", "--output_file", str(file)]
    benchmark.main(["slopes", *flags])
    written, printed = json.loads(file.read_text())["slopes"], capsys.readouterr().out
    assert written["num_steps"]["slope"] > 0 and written["prompts"]["amounts"] == [1, 2]
    assert "attack step" in printed and "100 classes" in printed


@pytest.mark.slow
def test_settings_take_recipes_in_turn_and_environments_apart(benchmark, tmp_path, capsys, monkeypatch):
    from benchmarks import settings

    seen = {}

    def measure(args, task, threads, environment):
        seen[len(seen)] = (threads, environment)
        return {"cpu": 1.0, "wall": 2.0, "peak": 2**20}

    monkeypatch.setattr(settings, "run_worker", measure)
    file = tmp_path / "out.json"
    flags = ["--models", "embedded default", "--batch_size", "4", "--repeats", "1", "--preload", "/lib/liballoc.so"]
    benchmark.main(["settings", *flags, "--output_file", str(file)])
    apart, in_turn = json.loads(file.read_text())["medians"].values()
    assert seen[0] == (1, {}) and (1, {"LD_PRELOAD": "/lib/liballoc.so"}) in seen.values()
    assert (2, {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}) in seen.values()
    assert list(apart) == [*settings.ENVIRONMENTS, "LD_PRELOAD=liballoc.so", *settings.THREADED]
    assert list(in_turn) == [*settings.RECIPES, *settings.CALLS]
    assert all(found["cpu"] > 0 for found in in_turn.values())
    assert torch.get_float32_matmul_precision() == "highest"
    assert "  tau=0 " in capsys.readouterr().out


def test_a_process_of_its_own_times_its_steps(benchmark, capsys):
    benchmark.main(["settings", "--worker", json.dumps({**CASE, "method": "tecoa", "steps": 2})])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"cpu", "wall", "peak"} and min(found["cpu"], found["wall"]) > 0


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
