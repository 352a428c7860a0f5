"""The benchmark of evaluation: ways that judge alike, what is counted, and tables of what processes found."""

import json
import sys
import time
import types

import pytest
import torch
from support.paths import EXAMPLES, ROOT

from hf_pmgaft.zero_shot import ZeroShotClassifier

CPU = torch.device("cpu")
CASE = {"shape": "embedded default", "model": str(EXAMPLES / "emoji" / "model"), "group": "food", "images": 12}
CASE |= {"batch_size": 5, "num_steps": 4, "apgd_steps": 4, "queries": 20, "clock": "wall"}
QUICK = ["--group", "food", "--images", "12", "--batch_size", "5", "--num_steps", "4", "--apgd_steps", "4"]
QUICK += ["--queries", "20", "--repeats", "1"]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "speed"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    import benchmark

    yield benchmark
    for name in [name for name in sys.modules if name.partition(".")[0] in ("benchmark", "benchmarks")]:
        sys.modules.pop(name)


@pytest.fixture
def ways(benchmark):
    from benchmarks.evaluation_ways import Ways

    return Ways(CASE, CPU)


class Answers:
    """Stands in for processes of their own: answers requests, and remembers them."""

    def __init__(self):
        self.calls = []

    def __call__(self, args, case, requests, checkout=None, processes=1):
        self.calls.append((case, list(requests), checkout, processes))
        answers = [[self.answer(request, case, rank) for rank in range(processes)] for request in requests]
        return answers, case["images"] > 1000

    def answer(self, request, case, rank):
        if request["way"] == "radius":
            return request["level"] / 100
        if request["way"] == "original AutoAttack":
            return {"missing": "autoattack is not installed"}
        count = case["images"]
        speed = 4.0 if request["way"] == "plain loop" else 2.0
        return {
            "seconds": speed / (2 if rank or case["images"] == 2 else 1),
            "busy": 1.0 + rank,
            "passes": 10,
            "images": 8 * case["batch_size"],
            "waiting_passes": 5,
            "waiting_images": 5 * case["batch_size"] - 5,
            "verdicts": [0] * (count - 1) + [1] if request["way"] == "ours" else [0] * count,
        }


@pytest.fixture
def answers(benchmark, monkeypatch) -> Answers:
    from benchmarks import evaluate

    answers = Answers()
    monkeypatch.setattr(evaluate, "run_requests", answers)
    return answers


# ---- The ways ----


def test_loops_judge_as_ours_does_and_take_every_pass(ways):
    eps = ways.radius(0.5)
    ours, plain, cached = (ways.measure(way, "pgd", eps) for way in ("ours", "plain loop", "loop, text cached"))
    assert ours["verdicts"] == plain["verdicts"] == cached["verdicts"]
    assert abs(sum(ours["verdicts"]) - 6) <= 1  # half of them stand
    assert plain["passes"] == cached["passes"] == 3 * (1 + 4 + 1) and plain["images"] == 12 * 6
    assert 12 < ours["images"] < plain["images"]
    assert 0 < ours["busy"] <= ours["seconds"]


def test_the_clock_may_be_that_of_the_processor(ways, monkeypatch):
    from benchmarks.evaluation_ways import CLOCKS, Ways

    assert CLOCKS[ways.options["clock"]] is ways.clock is time.perf_counter
    ways = Ways({**CASE, "clock": "cpu"}, CPU)
    monkeypatch.setattr(ways, "clock", iter(range(100)).__next__)
    assert ways.measure("ours", "pgd", 0.01)["seconds"] > 3  # a tick for each pass


def test_counting_leaves_nothing_behind(ways):
    embed = ZeroShotClassifier.embed
    ways.measure("ours", "pgd", 0.01)
    assert ZeroShotClassifier.embed is embed


def test_what_full_batches_tell_is_counted_where_there_are_any(ways, monkeypatch):
    from benchmarks.evaluation_ways import Counter

    from hf_pmgaft.attacks.full_batches import Usage

    counter, usage = Counter(time.perf_counter, batch_size=4), Usage(size=4)
    with counter.watching():
        usage.count(4, waiting=True)
        usage.count(1, waiting=False)
        Usage(size=1).count(1, waiting=True)  # of a trial
    usage.count(4, waiting=True)  # no longer watched
    assert (counter.waiting_passes, counter.waiting_images, usage.passes) == (1, 4, 3)

    monkeypatch.setitem(sys.modules, "hf_pmgaft.attacks.full_batches", None)  # as in a checkout from before
    counter = Counter(time.perf_counter, batch_size=4)
    with counter.watching():
        pass
    assert counter.waiting_passes is None


@pytest.mark.parametrize("attack", ["fast", pytest.param("standard", marks=pytest.mark.slow)])
def test_runners_of_libraries_judge_nearly_as_ours_does(ways, monkeypatch, attack):
    pyautoattack = pytest.importorskip("pyautoattack")

    class Original(pyautoattack.AutoAttack):
        """The port under the names of the original."""

        def __init__(self, model, norm, eps, seed, verbose, attacks_to_run, version, device):
            options = {"norm": norm, "eps": eps, "seed": seed, "version": version, "device": device}
            super().__init__(model, attacks=attacks_to_run, **options)

        def run_standard_evaluation(self, images, labels, bs):
            return super().run_standard_evaluation(images, labels, batch_size=bs)[0]

    assert "missing" in ways.measure("original AutoAttack", attack, 0.01)
    monkeypatch.setitem(sys.modules, "autoattack", types.SimpleNamespace(AutoAttack=Original))
    ours, port, original = (
        ways.measure(way, attack, 2 / 255) for way in ("ours", "pyautoattack's runner", "original AutoAttack")
    )
    assert port["verdicts"] == original["verdicts"] and port["passes"] == original["passes"]
    assert sum(a != b for a, b in zip(ours["verdicts"], port["verdicts"], strict=True)) <= 2


def test_memory_that_is_not_enough_is_a_result(ways, monkeypatch):
    def run_out(*arguments):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(ways, "judge", run_out)
    assert ways.measure("ours", "pgd", 0.01) == {"missing": "out of memory"}


def test_a_gpu_is_waited_for(benchmark, monkeypatch):
    from benchmarks.evaluation_ways import synchronize

    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronize(CPU)
    synchronize(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


# ---- The case ----


def test_images_are_of_all_groups_and_repeated_where_there_are_too_few(benchmark):
    from benchmarks.evaluation_case import GROUPS, load_emoji, spread

    emoji = load_emoji(GROUPS)
    assert len(emoji) == 1526 and len(set(emoji.features["label"].names)) == len(emoji.features["label"].names)
    assert len(set(emoji["label"])) == 1526
    assert spread(4, 8) == [0, 2, 4, 6] and spread(5, 3) == [0, 1, 2, 0, 1]


def test_a_model_of_random_weights_is_right_by_its_own_answers(benchmark, monkeypatch):
    from benchmarks import evaluation_case
    from benchmarks.common import SHAPES, make_model
    from support.tiny import make_pair_for

    names = evaluation_case.load_emoji(["food"]).features["label"].names
    monkeypatch.setattr(evaluation_case, "make_model", lambda shape: make_pair_for(names))
    case = evaluation_case.EvaluationCase({**CASE, "shape": "ViT-L/14"}, CPU)
    assert torch.equal(case.predictions(5), case.labels)
    assert [case.data[row]["labels"] for row in range(12)] == case.labels.tolist()

    with torch.device("meta"):
        monkeypatch.setitem(SHAPES["ViT-L/14"]["vision_config"], "num_hidden_layers", 1)
        model, processor = make_model("ViT-L/14")
    assert model.vision_model.embeddings.position_embedding.weight.shape == (257, 1024)
    assert model.projection_dim == 768 and processor.image_processor.crop_size == {"height": 224, "width": 224}


# ---- Tables ----


def test_every_attack_level_and_way_has_a_row(benchmark, answers, tmp_path, capsys):
    file = tmp_path / "out.json"
    before = ["--before", str(ROOT), "--sizes", "20", "2000", "--robust", "0.1", "0.3"]
    benchmark.main(["evaluate", *QUICK, *before, "--output_file", str(file)])

    printed = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in printed if line.startswith(("pgd", "fast"))]
    ours = [row for row in rows if row[2] == "ours" and len(row) == 9]
    assert len(ours) == 4
    # 12 images in 2 s, of batches of 5: 40 images in 10 passes, and 20 in 5 while something waited
    assert ours[0] == ["pgd", "8.3%", "ours", "6.00", "1.00", "3.3", "80.0%", "80.0%", "0"]
    (plain, _) = [line for line in printed if " plain loop " in line]
    assert plain.split()[4:] == ["3.00", "2.00", "3.3", "80.0%", "80.0%", "1"]
    assert sum("autoattack is not installed" in line for line in printed) == 2
    # Two processes: the slower one takes 2 s, and their work ends after 1 and 2 s.
    assert [row for row in rows if row[-1] == "1.33"][0] == ["pgd", "10%", "ours", "2.00", "2.00", "1.00", "1.33"]
    assert any(line.startswith("2000, repeated") for line in printed)
    assert [line.split()[-5:] for line in printed if line.startswith("20 ")][0] == [
        "ours",
        "10",
        "8",
        "80.0%",
        "80.0%",
    ]

    calls = answers.calls
    assert {checkout for _, _, checkout, _ in calls} == {None, str(ROOT)}
    assert {processes for _, _, _, processes in calls} == {1, 2}
    assert {case["group"] for case, *_ in calls} == {"food", "all"}
    written = json.loads(file.read_text())["cases"][0]
    assert written["ways"][0]["attack"] == "pgd" and written["ways"][0]["level"] == 0.1
    assert len(written["sizes"]) == 2 * 2 * 4


def test_processes_may_share_a_set_whose_robust_images_come_first(benchmark, answers):
    benchmark.main(["evaluate", *QUICK, "--robust", "0.1", "--attacks", "pgd", "--robust_first", "--only_ours"])
    assert {request["way"] for _, requests, *_ in answers.calls for request in requests} == {"radius", "ours"}
    from benchmarks.evaluation_case import EvaluationCase

    orders = {processes: case.get("order") for case, _, _, processes in answers.calls}
    assert orders == {1: None, 2: [11, *range(11)]}  # the last image stands
    plain = EvaluationCase({**CASE, "order": None}, CPU)
    ordered = EvaluationCase({**CASE, "order": orders[2]}, CPU)
    assert torch.equal(ordered.images, plain.images[orders[2]])
    assert torch.equal(ordered.labels, plain.labels[orders[2]])


def test_a_gpu_measures_true_shapes_at_three_batch_sizes(benchmark, answers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    benchmark.main(["evaluate", "--device", "cuda", "--shape", "ViT-B/32", "ViT-L/14", "--repeats", "1"])
    cases = [(case["shape"], case["batch_size"]) for case, *_ in answers.calls]
    shapes, sizes = ("ViT-B/32", "ViT-L/14"), (64, 256, 1024)
    assert list(dict.fromkeys(cases)) == [(shape, size) for shape in shapes for size in sizes]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda"], "--device cuda, but torch sees no GPU"),
        (["--before", "nowhere"], "--before nowhere, which holds no hf_pmgaft"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_measured(benchmark, answers, monkeypatch, flags, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        benchmark.main(["evaluate", *flags])
    assert not answers.calls


def test_more_processes_than_gpus_are_refused(benchmark, answers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="--processes 2 with 1 GPU"):
        benchmark.main(["evaluate", "--device", "cuda"])


@pytest.mark.slow
def test_processes_of_their_own_measure_two_checkouts_on_the_same_images(benchmark, tmp_path, capsys):
    pytest.importorskip("pyautoattack")
    file = tmp_path / "out.json"
    flags = ["--before", str(ROOT), "--robust", "0.5", "--sizes", "14"]
    benchmark.main(["evaluate", *QUICK, *flags, "--output_file", str(file)])
    pgd, fast = json.loads(file.read_text())["cases"][0]["ways"]
    for name in ("before", "plain loop", "loop, text cached"):
        assert pgd[name][0]["verdicts"] == pgd["ours"][0]["verdicts"]
    assert 0 < sum(pgd["ours"][0]["verdicts"]) < 12 and fast["before"][0]["verdicts"] == fast["ours"][0]["verdicts"]
    assert "times as fast" in capsys.readouterr().out
