"""Classification: which images an attack is on, and what stands after it."""

import copy
import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from support.sets import CE, MARGIN, make_data

from hf_pmgaft import AttackSpec, RobustnessReport, evaluate_robustness
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.evaluation import image_progress, judge

PGD = {"attack": "pgd", "eps": "20/255", "num_steps": 5, "loss": "margin"}
APGD = {"attack": "apgd", "eps": "20/255", "num_steps": 20}
APGD_T = {"attack": "apgd_t", "eps": "20/255", "num_steps": 20}
SQUARE = {"attack": "square", "eps": "20/255", "num_queries": 200}


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), **{"progress": False, **options})


def name(attack: dict) -> str:
    return AttackSpec.of(attack).name


def test_attack_lowers_accuracy_and_the_verdict_is_the_worst_case(fitted, data):
    weak = {**PGD, "eps": "2/255", "num_steps": 1}
    result = run(fitted, data, [PGD, weak]).sets[0]
    assert result.clean_accuracy > 0.9
    assert result.robust_accuracy < result.clean_accuracy - 0.1
    assert result.attacks[name(PGD)] <= result.attacks[name(weak)]
    assert result.robust_accuracy <= min(result.attacks.values())
    assert result.robust_accuracy == sum(result.verdicts["robust"]) / 40


def test_larger_radii_attack_only_what_smaller_ones_left(fitted, data, attacked):
    large = {**PGD, "eps": "30/255"}
    result = run(fitted, data, [large, PGD], batch_size=40).sets[0]
    after_small, after_large = result.attacks[name(PGD)], result.attacks[name(large)]
    on = [(call.radius, len(call.images)) for call in attacked]
    assert on == [(20 / 255, 40 * result.clean_accuracy), (30 / 255, 40 * after_small)]
    assert after_large < after_small < result.clean_accuracy
    alone = run(fitted, data, [large]).sets[0]
    assert after_large <= alone.robust_accuracy


def test_every_attacked_image_keeps_the_noise_of_its_row(fitted, data, attacked):
    # The larger radius attacks only some of a batch, so that an image's place there is not its row.
    result = run(fitted, data, [PGD, {**PGD, "eps": "30/255"}], batch_size=7, seed=3).sets[0]
    assert 0 < result.attacks[name(PGD)] < 1
    images = {}
    for call in attacked:
        images.update(zip(call.seeds.tolist(), call.images, strict=True))
    rows = [row for row, right in enumerate(result.verdicts["clean"]) if right]
    for row, seed in zip(rows, sample_seeds(3, 0, torch.tensor(rows)).tolist(), strict=True):
        assert torch.equal(images[seed], data[row]["images"])


def test_each_attack_goes_on_from_what_the_ones_before_left(fitted, data, attacked):
    pytest.importorskip("pyautoattack")
    result = run(fitted, data, [CE, APGD, APGD_T, SQUARE], batch_size=40, probes=False).sets[0]
    standing = [result.clean_accuracy, *result.attacks.values()]
    assert [len(call.images) for call in attacked] == [round(40 * share) for share in standing[:-1]]
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


def test_last_iterates_attack_every_image_and_ignore_the_clean_verdict(fitted, data, attacked):
    broken = copy.deepcopy(fitted[0])
    with torch.no_grad():
        broken.visual_projection.weight.mul_(-1)  # wrong on all images
    report = run((broken, fitted[1]), data, verdict="last_iterate", probes=False)
    assert sum(len(call.images) for call in attacked) == 40 and report.mean_clean_accuracy < 0.2


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
    assert both.attacks[name(fine)] == alone.robust_accuracy
    assert both.robust_accuracy == min(both.attacks.values())


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_a_collapsed_model_is_right_on_no_image_for_its_classes_tie(fitted, data, verdict):
    collapsed = copy.deepcopy(fitted[0])
    torch.nn.init.zeros_(collapsed.visual_projection.weight)  # every class has the logit 0
    (result,) = run((collapsed, fitted[1]), data, verdict=verdict, eight_bit=True).sets
    assert result.clean_accuracy == result.robust_accuracy == result.robust_8bit_accuracy == 0


def test_an_image_that_an_earlier_attack_fooled_until_rounded_stays_so(fitted, data):
    torch.manual_seed(0)
    unsure = copy.deepcopy(fitted[0])
    with torch.no_grad():
        unsure.visual_projection.weight.add_(3 * torch.randn_like(unsure.visual_projection.weight))
    # A ball that holds no other grey level leaves nothing once rounded; then a larger ball, in which nobody walks.
    fine = {**PGD, "eps": 0.9 / 255, "num_steps": 10}
    idle = {**PGD, "num_steps": 1, "step_size": 0.0, "random_start": False}
    (result,) = run((unsure, fitted[1]), data, [idle, fine], eight_bit=True).sets
    fooled, after = (result.verdicts[AttackSpec.of(spec).name] for spec in (fine, idle))
    assert after == fooled and sum(fooled) < sum(result.verdicts["clean"])
    assert result.robust_accuracy == sum(fooled) / 40 < result.robust_8bit_accuracy == result.clean_accuracy


def test_batches_of_8_64_and_512_give_the_same_report(fitted):
    pytest.importorskip("pyautoattack")
    data = make_data(fitted[1], 96)
    attacks = [MARGIN, APGD, SQUARE, {"attack": "fab_t", "eps": "20/255", "num_steps": 10}]
    reports = [run(fitted, data, attacks, batch_size=size).to_dict() for size in (8, 64, 512)]
    assert reports[0] == reports[1] == reports[2]
    assert 0 < reports[0]["mean_robust_accuracy"] < reports[0]["mean_clean_accuracy"]


def test_progress_shows_the_running_accuracy_and_the_time_left(fitted, data, monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)
    for module in (judge, image_progress):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=itertools.count(step=3).__next__))
    result = run(fitted, data, batch_size=10, probes=False, progress=True).sets[0]
    lines = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "own: PGD-10 margin" in line]
    shown = [float(share) for line in lines for share in re.findall(r"at most ([0-9.]+)% right", line)]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 2
    assert (shown[0], shown[-1]) == (100 * result.clean_accuracy, round(100 * result.robust_accuracy, 1))
    (running, *_) = [line for line in lines if "20/40" in line and "10 images" in line]
    assert re.search(r"<\d\d:\d\d, .*at most [0-9.]+% right, pass \d+ with 10 images", running)


def test_an_image_stands_under_a_threat_if_it_stands_under_each_of_its_attacks(fitted, data):
    idle = {**CE, "num_steps": 1, "step_size": 0.0, "random_start": False}
    for attacks in ([MARGIN, idle], [idle, MARGIN]):
        result = run(fitted, data, attacks, verdict="last_iterate").sets[0]
        strong, weak = (result.verdicts[AttackSpec.of(spec).name] for spec in (MARGIN, idle))
        assert result.verdicts["robust"] == strong and weak == result.verdicts["clean"] != strong
        assert result.robust_accuracy == result.threats["linf 20/255"] == sum(strong) / 40


def test_corrupted_images_are_judged_whatever_the_model_says_of_the_clean_ones(fitted, data):
    negated = copy.deepcopy(fitted[0])
    with torch.no_grad():
        negated.visual_projection.weight.mul_(-1)  # wrong on the clean images
    corruption = {"attack": "corruption", "kind": "brightness", "severity": 5}
    first, last = (
        run((negated, fitted[1]), data, [corruption, MARGIN], verdict=verdict).sets[0].verdicts
        for verdict in ("any_iterate", "last_iterate")
    )
    assert first["brightness 5"] == last["brightness 5"]
    assert any(after > before for before, after in zip(first["clean"], first["brightness 5"], strict=True))
