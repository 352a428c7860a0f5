"""Flags: an honest model raises none, and each way to fool an evaluation raises its own."""

import copy
import math

import pytest
import torch
from support.sets import CE, MARGIN

from hf_pmgaft import AttackSpec, RobustnessReport, ZeroShotClassifier, encode_class_names, evaluate_robustness
from hf_pmgaft.defences import ATTACKERS
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.evaluation.sanity import noise_flag, probe, verdict_flags

APGD = {"attack": "apgd", "eps": "20/255", "num_steps": 20}
APGD_T = {"attack": "apgd_t", "eps": "20/255", "num_steps": 20}
SQUARE = {"attack": "square", "eps": "20/255", "num_queries": 200}


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), **{"progress": False, **options})


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
    flags, _ = probe(wrapped, images, labels, torch.arange(16), AttackSpec.of(MARGIN))
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
    probe(watched, images, labels, torch.arange(4), AttackSpec.of(MARGIN))
    assert ((seen[-1] - images).abs().amax() - 20 / 255).abs() < 1e-6 and not torch.equal(seen[-1], seen[-2])


def flags_of(standing: dict[str, float], count: int = 1000) -> list[str]:
    """Flags from what stands after each attack, in their order, of so many images."""
    specs = [AttackSpec.parse(text) for text in standing]
    attacks = dict(zip([spec.name for spec in specs], standing.values(), strict=True))
    result = SetResult("own", 4, count, 1.0, min(standing.values()), attacks, threats={"linf 4/255": 0.5})
    return [flag["flag"] for flag in verdict_flags(result, specs)]


def test_a_margin_attack_that_finds_what_cross_entropy_missed_is_a_sign_beyond_doubt_alone():
    pytest.importorskip("pyautoattack")
    ce, margin, apgd_t = "pgd,eps=4/255", "pgd,eps=4/255,loss=margin", "apgd_t,eps=4/255"
    assert flags_of({ce: 0.8, margin: 0.6}) == flags_of({ce: 0.8, apgd_t: 0.6}) == ["weak attack"]
    assert flags_of({ce: 0.8, margin: 0.76}) == []
    assert flags_of({ce: 0.8, margin: 0.6}, count=5) == []
    assert flags_of({ce: 0.8}) == flags_of({margin: 0.6}) == []


def test_a_black_box_that_finds_what_gradients_missed_is_a_sign_beyond_doubt_alone():
    pytest.importorskip("pyautoattack")
    margin, square = "pgd,eps=4/255,loss=margin", "square,eps=4/255"
    assert flags_of({margin: 0.8, square: 0.7}) == ["black box"]
    assert flags_of({margin: 0.8, square: 0.797}) == flags_of({square: 0.7}) == []


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.5), ("l1", 6.0)])
def test_random_noise_has_the_length_of_the_radius_in_every_norm(fitted, data, norm, eps):
    seen = []
    classifier = make_classifier(fitted, data)

    def watched(x):
        seen.append(x.detach())
        return classifier(x)

    images, labels = torch.full((4, 3, 16, 16), 0.5), torch.arange(4)
    probe(watched, images, labels, torch.arange(4), AttackSpec.stored({"attack": "apgd", "norm": norm, "eps": eps}))
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    lengths = torch.linalg.vector_norm((seen[-1] - images).flatten(1), order, dim=1)
    torch.testing.assert_close(lengths, torch.full((4,), eps), rtol=1e-3, atol=1e-6)


# ---- Defended models ----


BY = {attacker: AttackSpec.parse(f"pgd,eps=4/255,attacker={attacker}") for attacker in ATTACKERS}


def defended(count: int = 1000, clean: float = 0.8, first_half: float | None = None, **standing: float) -> SetResult:
    """A result of so many images, by what each attacker leaves standing."""
    shares = {BY[attacker].name: share for attacker, share in standing.items()}
    columns = {
        name: [row < share * count for row in range(count)] for name, share in {"clean": clean, **shares}.items()
    }
    robust = min(standing.values())
    draws = None if first_half is None else {"robust": {"first_half": first_half}}
    threats = {BY["through"].threat: robust}
    return SetResult("own", 10, count, clean, robust, shares, columns, threats, draws=draws)


@pytest.mark.parametrize(
    ("result", "flags"),
    [
        (defended(unaware=0.7, through=0.5, straight_through=0.5), []),
        # Who knows the defence fools less
        (defended(unaware=0.4, through=0.5, straight_through=0.5), ["unaware attack"]),
        (defended(unaware=0.497, through=0.5, straight_through=0.5), []),
        (defended(unaware=0.4, through=0.5, straight_through=0.5, count=20), []),
        (defended(unaware=0.4, through=0.3, straight_through=0.5), []),
        # The gradient through the defence leads nowhere
        (defended(unaware=0.7, through=0.7, straight_through=0.5), ["masked gradients"]),
        (defended(through=0.7, straight_through=0.5), ["masked gradients"]),
        (defended(unaware=0.7, through=0.5, straight_through=0.7), []),
        (defended(unaware=0.7, through=0.503, straight_through=0.5), []),
        # Attacks that help
        (defended(unaware=0.9, through=0.9, straight_through=0.9), ["above clean"]),
        (defended(unaware=0.9, through=0.9, straight_through=0.7), ["masked gradients"]),
        (defended(unaware=0.9, through=0.9, straight_through=0.9, count=20), []),
        # Verdicts that move with the number of draws
        (defended(unaware=0.7, through=0.5, straight_through=0.5, first_half=0.45), ["few draws"]),
        (defended(unaware=0.7, through=0.5, straight_through=0.5, first_half=0.55), ["few draws"]),
        (defended(unaware=0.7, through=0.5, straight_through=0.5, first_half=0.49), []),
    ],
)
def test_flags_of_defended_models(result, flags):
    specs = [spec for spec in BY.values() if spec.name in result.attacks]
    assert [flag["flag"] for flag in verdict_flags(result, specs)] == flags


def test_losses_are_compared_for_each_attacker_alone():
    def result_of(specs, shares) -> SetResult:
        standing = {spec.name: share for spec, share in zip(specs, shares, strict=True)}
        columns = {name: [row < 1000 * share for row in range(1000)] for name, share in standing.items()}
        columns["clean"] = [True] * 1000
        return SetResult("own", 10, 1000, 1.0, 0.3, standing, columns, {"linf 4/255": 0.3})

    attacks = {"unaware": "ce", "through": "margin"}
    specs = [AttackSpec.parse(f"pgd,eps=4/255,loss={loss},attacker={name}") for name, loss in attacks.items()]
    assert verdict_flags(result_of(specs, [0.7, 0.3]), specs) == []
    specs = [AttackSpec.parse(f"pgd,eps=4/255,loss={loss},attacker=through") for loss in ("ce", "margin")]
    assert [flag["flag"] for flag in verdict_flags(result_of(specs, [0.7, 0.3]), specs)] == ["weak attack"]
