"""Gradients in bfloat16: they alone are coarse, and what follows from them says so."""

import pytest
import torch
from support.emoji import make_data as make_captioned
from support.sets import CE, MARGIN

from hf_pmgaft import NearestClassMean, RobustnessReport, ZeroShotClassifier, compare_reports, evaluate_robustness
from hf_pmgaft.evaluation.attack_precision import in_attack_precision
from hf_pmgaft.zero_shot import encode_class_names

ATTACKS = [
    {"attack": "fgsm", "eps": "20/255"},
    {**CE, "restarts": 2},
    {**MARGIN, "norm": "l2", "eps": 1.5},
    {"attack": "cw", "eps": "20/255", "num_steps": 5},
    {"attack": "patch", "size": 4, "num_steps": 4},
]
OF_AUTOATTACK = [
    {"attack": "apgd", "eps": "20/255", "num_steps": 5},
    {"attack": "apgd_t", "eps": "20/255", "num_steps": 5},
    {"attack": "fab_t", "eps": "20/255", "num_steps": 4, "num_targets": 2},
    {"attack": "square", "eps": "20/255", "num_queries": 10},
]


def run(fitted, data, attacks=(MARGIN,), precision="bf16", **options) -> RobustnessReport:
    options = {"progress": False, "probes": False, "attack_precision": precision, **options}
    return evaluate_robustness(*fitted, [data], list(attacks), **options)


@pytest.fixture
def classifier(fitted, data) -> ZeroShotClassifier:
    return ZeroShotClassifier.from_model(*fitted, encode_class_names(*fitted, data.class_names, data.prompt_templates))


@pytest.fixture
def images(data) -> torch.Tensor:
    return torch.stack([data[row]["images"] for row in range(8)])


@pytest.fixture
def passes(fitted):
    """Of each image pass of a test its kind: with a gradient in bf16, or without in fp32."""
    kinds = []

    def note(tower, inputs, output):
        is_bf16 = torch.is_autocast_enabled("cpu")
        kinds.append((output.pooler_output.requires_grad, is_bf16))

    hook = fitted[0].vision_model.register_forward_hook(note)
    yield kinds
    hook.remove()


# ---- The classifier ----


def test_logits_are_those_of_float32_to_the_bit_and_gradients_those_of_bfloat16(classifier, images):
    def gradient_of(classifier, points):
        points = points.clone().requires_grad_()
        logits = classifier(points)
        return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), points)[0]

    coarse = in_attack_precision(classifier, "bf16")
    logits, gradient = gradient_of(coarse, images)
    exact_logits, exact_gradient = gradient_of(classifier, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_autocast, _ = gradient_of(classifier, images)

    assert torch.equal(logits, exact_logits) and not torch.equal(logits, by_autocast)
    assert torch.equal(coarse(images), exact_logits)  # without a gradient, too
    distance = (gradient - exact_gradient).norm() / exact_gradient.norm()
    assert 1e-4 < distance < 0.1  # coarse, and of the same loss


def test_float32_is_the_classifier_itself(classifier):
    assert in_attack_precision(classifier, "fp32") is classifier


def test_embeddings_without_end_stay_so(classifier):
    endless = classifier.replace(encode_image=lambda pixels: pixels.flatten(1)[:, :2] * torch.tensor([1.0, torch.inf]))
    points = torch.full((1, 3, 16, 16), 0.9, requires_grad=True)
    assert torch.equal(in_attack_precision(endless, "bf16").embed(points), endless.embed(points))
    assert endless.embed(points).isinf().any()


def test_a_gradient_can_be_taken_of_each_class_from_one_pass(classifier, images):
    points = images.requires_grad_()
    logits = in_attack_precision(classifier, "bf16")(points)
    first, second, again = (
        torch.autograd.grad(logits[:, label].sum(), points, retain_graph=True)[0] for label in (0, 1, 0)
    )
    assert torch.equal(first, again) and not torch.equal(first, second)


# ---- The evaluation ----


@pytest.mark.parametrize("attack", ATTACKS + OF_AUTOATTACK, ids=lambda attack: attack["attack"])
def test_every_attack_walks_by_coarse_gradients_and_is_judged_by_exact_values(fitted, data, passes, attack):
    if attack in OF_AUTOATTACK:
        pytest.importorskip("pyautoattack")
    with_gradient = {"attack": "pgd", "eps": "1/255", "num_steps": 1}  # beside Square, which takes none
    report = run(fitted, data, [attack, with_gradient], max_samples=8)
    assert report.mean_robust_accuracy <= report.mean_clean_accuracy
    assert set(passes) == {(True, True), (False, False)}


@pytest.mark.parametrize("attack", [MARGIN, CE], ids=lambda attack: attack["loss"])
def test_a_coarse_attack_fools_nearly_the_same_images(fitted, data, attack):
    coarse, exact = (run(fitted, data, [attack], precision) for precision in ("bf16", "fp32"))
    pair = compare_reports(exact, coarse, ignore=["attack_precision"]).sets["own"]
    assert pair["clean"].gained == pair["clean"].lost == 0
    assert pair["robust"].gained + pair["robust"].lost <= 2
    assert 0 < coarse.mean_robust_accuracy < coarse.mean_clean_accuracy


def test_captions_and_heads_are_attacked_by_coarse_gradients_too(emoji, fitted, data, passes):
    captioned = make_captioned(emoji[1])
    pgd = ["pgd,eps=2/255,num_steps=3"]
    coarse, exact = (run(emoji, captioned, pgd, precision, max_samples=12) for precision in ("bf16", "fp32"))
    assert [result.clean_accuracy for result in coarse.sets] == [result.clean_accuracy for result in exact.sets]

    passes.clear()
    run(fitted, data, head=NearestClassMean({"own": data}), max_samples=8)
    assert set(passes) == {(True, True), (False, False)}


# ---- What says so ----


def test_the_protocol_names_bf16_and_of_float32_is_as_ever(fitted, data):
    coarse, exact = (run(fitted, data, precision=precision, max_samples=6) for precision in ("bf16", "fp32"))
    as_ever = evaluate_robustness(*fitted, [data], [MARGIN], max_samples=6, progress=False)
    assert coarse.protocol == {**exact.protocol, "attack_precision": "bf16"}
    assert exact.protocol_hash == as_ever.protocol_hash != coarse.protocol_hash
    assert coarse.verdict == f"{exact.verdict}; gradients of the attacks in bf16"
    with pytest.raises(ValueError, match="they differ in attack_precision. Evaluate"):
        compare_reports(exact, coarse)


@pytest.mark.parametrize("precisions", [("fp32", "bf16"), ("bf16", "fp32")], ids=" then ".join)
def test_verdicts_of_the_other_precision_are_refused(fitted, data, tmp_path, precisions):
    file = tmp_path / "verdicts.jsonl"
    first, second = precisions
    run(fitted, data, precision=first, max_samples=4, verdict_file=file)
    with pytest.raises(ValueError, match="attack_precision"):
        run(fitted, data, precision=second, max_samples=4, verdict_file=file)


# ---- What cannot be ----


@pytest.mark.parametrize(
    ("precision", "attacks", "message"),
    [
        ("follow", [MARGIN], r"no attack_precision 'follow'. Choose one of \['bf16', 'fp32'\]"),
        (
            "bf16",
            ["corruption,kind=jpeg,severity=1", "square,eps=4/255"],
            r"attack_precision='bf16' with attacks that take no gradient \(corruption, square\), .* Leave it out",
        ),
    ],
)
def test_a_precision_that_means_nothing_is_refused(fitted, data, precision, attacks, message):
    with pytest.raises(ValueError, match=message):
        run(fitted, data, attacks, precision)
