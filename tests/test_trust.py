"""What makes a robustness number one to believe: nothing lost, nothing mixed, and a warning when it smells."""

import copy
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import fit_model, make_images

from hf_pmgaft.attacks import minimal_l2
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.flags import noise_flag, probe
from hf_pmgaft.intervals import paired_difference
from hf_pmgaft.report import RobustnessReport, compare_reports
from hf_pmgaft.threats import attack_name, check_attack
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

CE = {"attack": "pgd", "eps": "20/255", "num_steps": 10, "loss": "ce"}
MARGIN = {**CE, "loss": "margin"}
APGD = {"attack": "apgd", "eps": "20/255", "num_steps": 20}
APGD_T = {"attack": "apgd_t", "eps": "20/255", "num_steps": 20}
SQUARE = {"attack": "square", "eps": "20/255", "num_queries": 200}
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def fitted():
    return fit_model()


@pytest.fixture(scope="module")
def data(fitted):
    return make_data(fitted[1])


def make_data(processor, size=40) -> ZeroShotDataset:
    return ZeroShotDataset(make_images(size, seed=9), processor, None, "a photo of the {}", name="own")


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), **{"progress": False, **options})


# ---- Verdicts ----


def test_each_attack_goes_on_from_what_the_ones_before_left(fitted, data, monkeypatch):
    pytest.importorskip("pyautoattack")
    from hf_pmgaft import evaluation

    attacked = []
    plain = evaluation.run_attack

    def count(spec, classifier, images, *rest):
        attacked.append(len(images))
        return plain(spec, classifier, images, *rest)

    monkeypatch.setattr(evaluation, "run_attack", count)
    result = run(fitted, data, [CE, APGD, APGD_T, SQUARE], batch_size=40, probes=False).sets[0]
    standing = [result.clean_accuracy, *result.attacks.values()]
    assert attacked == [round(40 * share) for share in standing[:-1]]
    assert standing == sorted(standing, reverse=True) and 0 < result.robust_accuracy == standing[-1] < standing[0]
    assert result.threats == {"linf 20/255": result.robust_accuracy}


def test_other_threats_stand_beside_the_headline(fitted, data):
    beside = [
        {"attack": "fgsm", "eps": "60/255"},
        {"attack": "pgd", "eps": 2.0, "norm": "l2"},
        {"attack": "cw", "eps": 1.0},
        {"attack": "patch", "size": 6},
        {"attack": "corruption", "kind": "gaussian_noise", "severity": 5},
        {"attack": "pgd", "eps": "1/255", "num_steps": 2},
    ]
    alone = run(fitted, data, [MARGIN, beside[-1]]).sets[0]
    result = run(fitted, data, [MARGIN, *beside]).sets[0]
    assert result.robust_accuracy == alone.robust_accuracy == result.threats["linf 20/255"]
    assert result.verdicts["robust"] == alone.verdicts["robust"]
    assert set(result.threats) == {
        *("linf 20/255", "linf 60/255", "l2 2.0", "l2 1.0", "patch 6x6", "gaussian_noise 5", "linf 1/255")
    }
    assert result.threats["linf 1/255"] >= result.threats["linf 20/255"] >= result.threats["linf 60/255"]
    assert result.threats["l2 2.0"] <= result.threats["l2 1.0"] < result.clean_accuracy
    assert result.threats["patch 6x6"] < result.clean_accuracy


def test_the_last_iterate_on_all_images_is_never_below_any_iterate(fitted, data):
    # Steps so long that walks leave what they found.
    wild = {"attack": "pgd", "eps": "16/255", "loss": "dlr", "step_size": "40/255", "num_steps": 5}
    any_iterate = run(fitted, data, [wild]).sets[0]
    last = run(fitted, data, [wild], verdict="last_iterate")
    assert last.protocol["verdict"].startswith("last iterate, all images")
    assert any_iterate.clean_accuracy == last.sets[0].clean_accuracy
    worse = zip(any_iterate.verdicts["robust"], last.sets[0].verdicts["robust"], strict=True)
    assert all(a <= b for a, b in worse) and any_iterate.robust_accuracy < last.sets[0].robust_accuracy


def test_last_iterates_attack_every_image_and_ignore_the_clean_verdict(fitted, data, monkeypatch):
    from hf_pmgaft import evaluation

    sizes = []
    plain = evaluation.run_attack
    monkeypatch.setattr(
        evaluation, "run_attack", lambda spec, c, x, *rest: sizes.append(len(x)) or plain(spec, c, x, *rest)
    )
    broken = copy.deepcopy(fitted[0])
    with torch.no_grad():
        broken.visual_projection.weight.mul_(-1)  # wrong on all images
    report = evaluate_robustness(
        broken, fitted[1], [data], [MARGIN], verdict="last_iterate", probes=False, progress=False
    )
    assert sum(sizes) == 40 and report.mean_clean_accuracy < 0.2


def test_rounding_to_8_bits_is_judged_on_request(fitted, data):
    assert run(fitted, data).sets[0].robust_8bit_accuracy is None
    result = run(fitted, data, [MARGIN], eight_bit=True).sets[0]
    assert result.robust_accuracy <= result.robust_8bit_accuracy < result.clean_accuracy


def test_rounding_counts_the_same_whatever_smaller_radii_stand_beside(fitted, data):
    torch.manual_seed(0)
    unsure = copy.deepcopy(fitted[0])
    with torch.no_grad():
        unsure.visual_projection.weight.add_(3 * torch.randn_like(unsure.visual_projection.weight))
    # A ball that holds no other grey level leaves nothing once rounded.
    fine = {**MARGIN, "eps": 0.9 / 255}
    alone, large, both = (
        run((unsure, fitted[1]), data, attacks, eight_bit=True).sets[0]
        for attacks in ([fine], [MARGIN], [MARGIN, fine])
    )
    assert alone.robust_accuracy < alone.robust_8bit_accuracy == alone.clean_accuracy
    assert both.robust_8bit_accuracy == large.robust_8bit_accuracy < alone.robust_8bit_accuracy
    assert both.attacks[attack_name(check_attack(fine))] == alone.robust_accuracy
    assert both.robust_accuracy == min(both.attacks.values())


def test_batches_of_8_64_and_512_give_the_same_report(fitted):
    pytest.importorskip("pyautoattack")
    data = make_data(fitted[1], 96)
    attacks = [MARGIN, APGD, SQUARE, {"attack": "fab_t", "eps": "20/255", "num_steps": 10}]
    reports = [run(fitted, data, attacks, batch_size=size).to_dict() for size in (8, 64, 512)]
    assert reports[0] == reports[1] == reports[2]
    assert 0 < reports[0]["mean_robust_accuracy"] < reports[0]["mean_clean_accuracy"]


def test_rows_of_a_set_can_be_fixed(fitted):
    data = ZeroShotDataset(make_images(40, seed=9), fitted[1], None, "a photo of the {}", "own", sample_ids=[3, 30, 7])
    assert run(fitted, data).sets[0].verdicts["sample_id"] == [3, 30, 7]


# ---- Nothing lost ----


def test_progress_shows_the_running_accuracy_and_the_time_left(fitted, data, monkeypatch, capsys):
    from hf_pmgaft import evaluation

    monkeypatch.setattr(evaluation, "time", SimpleNamespace(monotonic=itertools.count(step=3).__next__))
    result = run(fitted, data, batch_size=10, probes=False, progress=True).sets[0]
    lines = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "own: PGD-10 margin" in line]
    shown = [float(share) for line in lines for share in re.findall(r"at most ([0-9.]+)% right", line)]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 2
    assert (shown[0], shown[-1]) == (100 * result.clean_accuracy, round(100 * result.robust_accuracy, 1))
    (running, *_) = [line for line in lines if "20/40" in line and "pass 3 over a batch" in line]
    assert re.search(r"<\d\d:\d\d, .*at most [0-9.]+% right, pass 3", running)


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


def test_verdicts_on_file_are_not_made_again(fitted, data, tmp_path, monkeypatch):
    from hf_pmgaft import evaluation

    file = tmp_path / "verdicts.jsonl"
    whole = run(fitted, data, verdict_file=file).to_dict()
    monkeypatch.setattr(evaluation, "run_attack", lambda *args: pytest.fail("attacked again"))
    assert run(fitted, data, verdict_file=file).to_dict() == whole


KILLED = """
import sys
import torch
from conftest import make_processor
from test_trust import MARGIN, make_data
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
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model"), str(file)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


# ---- Protocol and comparison ----


def test_the_protocol_holds_what_the_figures_depend_on(fitted, data):
    report = run(fitted, data)
    protocol = report.protocol
    assert protocol["headline"] == "linf 20/255" and protocol["dtype"] == "float32" and protocol["device"] == "cpu"
    assert protocol["attacks"][0] == check_attack(MARGIN)
    assert {"num_steps", "step_size", "random_start", "restarts", "momentum"} < set(protocol["attacks"][0])
    assert {"torch", "transformers", "datasets", "pillow", "python", "hf_pmgaft"} <= set(protocol["versions"])
    own = protocol["sets"]["own"]
    assert own["attacked_at"] == 16 and own["prompt_templates"] == ["a photo of the {}"] and own["num_classes"] == 4
    assert len(own["images"]) == len(own["class_names"]) == len(own["sample_ids"]) == 12
    assert report.model["logit_scale"] == pytest.approx(fitted[0].logit_scale.exp().item(), rel=1e-4)
    other = ZeroShotDataset(make_images(40, seed=10), fitted[1], None, "a photo of the {}", name="own")
    assert run(fitted, other).protocol["sets"]["own"]["images"] != own["images"]


def test_comparison_pairs_the_images(fitted, data):
    first = run(fitted, data)
    other = copy.deepcopy(fitted[0])
    torch.manual_seed(0)
    with torch.no_grad():
        other.visual_projection.weight.add_(0.3 * torch.randn_like(other.visual_projection.weight))
    second = run((other, fitted[1]), data)
    assert first.protocol_hash == second.protocol_hash and first.model != second.model
    pair = compare_reports(first, second).sets["own"]["robust"]
    a, b = (report.sets[0].verdicts["robust"] for report in (first, second))
    assert pair.difference == pytest.approx(second.mean_robust_accuracy - first.mean_robust_accuracy)
    assert pair.gained == sum(y > x for x, y in zip(a, b, strict=True)) and pair.gained + pair.lost > 0
    assert pair.interval[0] < pair.difference < pair.interval[1]
    same = compare_reports(first, first)
    assert same.sets["own"]["clean"].difference == 0 and same.sets["own"]["clean"].p_value == 1
    mean, low, high = compare_reports(first, second).means["robust"]
    assert mean == pytest.approx(pair.difference) and low < mean < high


def test_reports_of_different_protocols_are_not_compared(fitted, data):
    first, second = run(fitted, data), run(fitted, data, [CE], seed=1)
    with pytest.raises(ValueError, match=r"different protocols.*attacks.*seed.*sets.own.attacks"):
        compare_reports(first, second)
    second = copy.deepcopy(first)
    second.protocol["versions"]["torch"] = "1.0"
    with pytest.raises(ValueError, match="versions.torch"):
        compare_reports(first, second)
    assert compare_reports(first, second, ignore=["versions"]).means["clean"][0] == 0
    second.sets[0].verdicts = {}
    with pytest.raises(ValueError, match="no verdicts of the same images"):
        compare_reports(first, second, ignore=["versions"])


def test_paired_differences_have_the_textbook_values():
    pair = paired_difference([1] * 15 + [0] * 85, [0] * 5 + [1] * 10 + [1] * 20 + [0] * 65)
    assert (pair.gained, pair.lost, pair.n, pair.difference) == (20, 5, 100, 0.15)
    assert pair.p_value == pytest.approx(0.00408, abs=1e-5)  # binomial, 5 or fewer of 25, twice
    p, q = 21 / 102, 6 / 102  # Bonett and Price: a half more on each side, in four cells of a half
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert pair.interval == pytest.approx((p - q - half, p - q + half))


def test_the_p_value_of_many_differences_is_near_the_exact_one():
    gained, lost = 560, 500
    pair = paired_difference([0] * gained + [1] * lost, [1] * gained + [0] * lost)
    exact = 2 * sum(math.comb(gained + lost, k) for k in range(lost + 1)) / 2 ** (gained + lost)
    assert pair.p_value == pytest.approx(exact, rel=0.01)


def test_a_report_that_was_cut_off_or_changed_is_refused(fitted, data, tmp_path):
    file = tmp_path / "report.json"
    run(fitted, data).save(file)
    content = json.loads(file.read_text())
    content["protocol"]["attacks"][0]["num_steps"] = 1000
    (tmp_path / "changed.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was changed"):
        RobustnessReport.load(tmp_path / "changed.json")
    for text in (file.read_text()[:200], "[]", '{"sets": []}', ""):
        file.write_text(text)
        with pytest.raises(ValueError, match="no whole robustness report"):
            RobustnessReport.load(file)


# ---- Flags ----


def scaled(model, factor):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.logit_scale.add_(math.log(factor))
    return other


def test_an_honest_model_raises_no_flag(fitted, data):
    pytest.importorskip("pyautoattack")
    report = run(fitted, data, [CE, MARGIN, APGD, APGD_T, SQUARE])
    assert 0 < report.mean_robust_accuracy < report.mean_clean_accuracy
    assert report.flags == []


def test_logits_times_1000_are_found_out(fitted, data):
    honest = run(fitted, data, [CE]).mean_robust_accuracy
    report = run((scaled(fitted[0], 1000), fitted[1]), data, [CE, MARGIN])
    ce, margin = report.sets[0].attacks.values()
    assert ce > 0.9 > honest + 0.2 and margin < 0.7  # cross-entropy alone would call it robust
    assert {flag["flag"] for flag in report.flags} >= {"zero gradients", "weak attack"}
    assert "PGD-10 ce" in next(flag["message"] for flag in report.flags if flag["flag"] == "weak attack")


class MaskedGradients(torch.nn.Module):
    """Rounds pixels coarsely, which has no gradient: attacks that follow one do not move."""

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = embeddings
        self.patch_embedding = embeddings.patch_embedding

    def forward(self, pixel_values, **options):
        return self.embeddings((pixel_values * 4).round() / 4, **options)


def test_masked_gradients_are_found_out(fitted, data):
    pytest.importorskip("pyautoattack")
    masked = copy.deepcopy(fitted[0])
    masked.vision_model.embeddings = MaskedGradients(masked.vision_model.embeddings)
    report = run((masked, fitted[1]), data, [MARGIN, APGD, {**SQUARE, "num_queries": 500}])
    found = {flag["flag"] for flag in report.flags}
    assert found >= {"zero gradients", "huge radius", "black box"}


def test_noise_that_fools_what_a_stuck_attack_left_is_found_out(fitted, data):
    masked = copy.deepcopy(fitted[0])
    masked.vision_model.embeddings = MaskedGradients(masked.vision_model.embeddings)
    stuck = {**MARGIN, "eps": "60/255", "random_start": False}
    report = run((masked, fitted[1]), data, [stuck])
    assert report.mean_robust_accuracy == report.mean_clean_accuracy
    assert "noise" in {flag["flag"] for flag in report.flags}


def make_classifier(fitted, data):
    embeds = encode_class_names(*fitted, data.class_names, data.prompt_templates)
    return ZeroShotClassifier.from_model(*fitted, embeds)


@pytest.mark.parametrize("kind", ["honest", "random", "probabilities"])
def test_probes_look_at_any_classifier(fitted, data, kind):
    classifier = make_classifier(fitted, data)
    wrapped = {
        "honest": classifier,
        "random": lambda x: classifier(x + 0.05 * torch.randn_like(x)),
        "probabilities": lambda x: classifier(x).softmax(1),
    }[kind]
    images = torch.stack([data[i]["images"] for i in range(16)])
    labels = torch.tensor([data[i]["labels"] for i in range(16)])
    flags, _ = probe(wrapped, images, labels, torch.arange(16), check_attack(MARGIN))
    assert (kind in {flag["flag"] for flag in flags}) == (kind != "honest")
    assert flags or kind == "honest"


def test_noise_that_fools_more_than_the_attack_is_found_out():
    assert noise_flag([True] * 8 + [False] * 24, [True] * 32, "own")[0]["flag"] == "noise"
    assert noise_flag([True] * 8 + [False] * 24, [False] * 8 + [True] * 24, "own") == []
    assert noise_flag([False] * 32, [True] * 32, "own") == []


def test_random_noise_is_drawn_inside_the_ball(fitted, data):
    seen = []
    classifier = make_classifier(fitted, data)

    def watched(x):
        seen.append(x.detach())
        return classifier(x)

    images = torch.stack([data[i]["images"] for i in range(4)])
    labels = torch.tensor([data[i]["labels"] for i in range(4)])
    probe(watched, images, labels, torch.arange(4), check_attack(MARGIN))
    assert ((seen[-1] - images).abs().amax() - 20 / 255).abs() < 1e-6 and not torch.equal(seen[-1], seen[-2])


# ---- What cannot be ----


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"attack": "apgd", "eps": "1/255", "steps": 3}, "takes no steps.*num_steps"),
        ({"attack": "pgd", "eps": "1/255", "norm": "l1"}, "no norm 'l1'"),
        ({"attack": "patch"}, "has no size"),
        ({"attack": "corruption", "kind": "rain", "severity": 1}, "no kind 'rain'"),
        ({"attack": "corruption", "kind": "jpeg", "severity": 6}, "no severity 6"),
        ({"attack": "square", "eps": "1/255", "num_queries": 0}, "num_queries=0"),
        ({"attack": "autoattack", "eps": "1/255", "version": "rand"}, "no version 'rand'"),
        ({"attack": "pgd", "eps": "1/255", "loss": "hinge"}, "no loss 'hinge'"),
    ],
)
def test_attacks_that_cannot_run_are_refused_before_anything_is_spent(fitted, data, attack, message):
    with pytest.raises(ValueError, match=message):
        run(fitted, data, [attack])


def test_classes_too_few_for_a_loss_are_refused(fitted):
    two = make_images(8).filter(lambda row: row["label"] < 2)
    data = ZeroShotDataset(two, fitted[1], ["red disc", "green disc"], "a photo of the {}", "two")
    for attack, needed in (({**CE, "loss": "dlr"}, 3), (APGD_T, 4)):
        with pytest.raises(ValueError, match=f"at least {needed} classes.*the set has 2.*autoattack"):
            run(fitted, data, [attack])
    report = run(fitted, data, [{"attack": "autoattack", "version": "fast", "eps": "1/255"}], probes=False)
    assert list(report.sets[0].attacks) == ["APGD-CE linf 1/255", "APGD-MARGIN linf 1/255"]


def test_verdicts_and_attacks_must_be_named(fitted, data):
    with pytest.raises(ValueError, match="no verdict 'best'.*any_iterate"):
        run(fitted, data, verdict="best")
    with pytest.raises(ValueError, match="no attacks"):
        run(fitted, data, [])


def test_without_pyautoattack_its_attacks_are_refused_first(fitted, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ImportError, match="pyautoattack is not installed"):
        run(fitted, data, [MARGIN, {"attack": "autoattack", "eps": "1/255"}])


# ---- Names and other attacks ----


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        ({"attack": "pgd", "eps": "4/255", "num_steps": 50, "loss": "margin"}, "PGD-50 margin linf 4/255"),
        ({"attack": "pgd", "eps": "4/255", "restarts": 5}, "PGD-10 x5 ce linf 4/255"),
        ({"attack": "pgd", "eps": "4/255", "step_size": "2/255"}, "PGD-10 ce linf 4/255 (step_size=2/255)"),
        ({"attack": "fgsm", "eps": "4/255"}, "FGSM ce linf 4/255"),
        ({"attack": "apgd", "eps": 0.5, "norm": "l2", "loss": "dlr"}, "APGD-DLR l2 0.5"),
        ({"attack": "apgd_t", "eps": "4/255", "num_steps": 20}, "APGD-T linf 4/255 (num_steps=20)"),
        ({"attack": "cw", "eps": 0.5}, "CW l2 0.5"),
        ({"attack": "autoattack", "eps": "4/255"}, "AutoAttack standard linf 4/255"),
        ({"attack": "patch", "size": 16}, "PATCH 16x16"),
        ({"attack": "corruption", "kind": "jpeg", "severity": 2}, "jpeg 2"),
    ],
)
def test_attacks_are_named_by_what_they_do(attack, name):
    assert attack_name(check_attack(attack)) == name


@pytest.mark.parametrize("initial_const", [1e-4, 1.0, 100.0], ids="first constant {}".format)
def test_the_nearest_point_of_a_linear_model_has_a_closed_form(initial_const):
    """With the smallest first constant the search finds nothing and must go up, with the largest it must come down."""
    torch.manual_seed(0)
    weight, images = torch.randn(2, 48, dtype=torch.float64), torch.full((6, 3, 4, 4), 0.5, dtype=torch.float64)
    images += 0.1 * torch.rand_like(images)

    def linear(x):
        return x.double().flatten(1) @ weight.T

    labels = linear(images).argmax(1)
    gap = (linear(images).gather(1, labels[:, None]) - linear(images).gather(1, 1 - labels[:, None])).squeeze(1)
    nearest = gap / (weight[0] - weight[1]).norm()
    labels[5] = 1 - labels[5]  # misclassified from the start
    points = minimal_l2(linear, images, labels, num_steps=100, initial_const=initial_const)
    found, nearest = (points - images).flatten(1).norm(dim=1)[:5], nearest[:5]
    assert (found >= 0.999 * nearest).all() and (found <= 1.02 * nearest).all()
    assert (linear(points).argmax(1) != labels).all()
    torch.testing.assert_close(points[5], images[5], rtol=0, atol=1e-7)
