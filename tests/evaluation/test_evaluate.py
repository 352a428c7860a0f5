"""`evaluate_robustness`: what must not change its verdicts, what it leaves alone, and what it refuses."""

import copy
import json
import sys

import pytest
import torch
from support.tiny import make_images, make_model

from hf_pmgaft import RobustnessReport, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.evaluation import sample_ids
from hf_pmgaft.zero_shot.classifier import ZeroShotClassifier

PGD = {"attack": "pgd", "eps": "20/255", "num_steps": 5, "loss": "margin"}
CE = {"attack": "pgd", "eps": "20/255", "num_steps": 10, "loss": "ce"}


def run(fitted, data, attacks=(PGD,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), progress=False, **options)


# ---- What does not matter ----


def test_verdicts_depend_neither_on_the_batch_size_nor_on_the_other_images(fitted, data):
    reports = [run(fitted, data, batch_size=size) for size in (3, 8, 40)]
    assert len({json.dumps(report.sets[0].verdicts) for report in reports}) == 1
    assert 0 < reports[0].mean_robust_accuracy < reports[0].mean_clean_accuracy  # there is something to depend on
    part = run(fitted, data, max_samples=10)
    ids = part.sets[0].verdicts["sample_id"]
    whole = dict(zip(range(40), reports[0].sets[0].verdicts["robust"], strict=True))
    assert ids == sample_ids(40, 10, 0) and part.sets[0].verdicts["robust"] == [whole[i] for i in ids]


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_what_is_told_beforehand_is_the_most_that_is_computed(fitted, data, verdict, monkeypatch, capsys):
    passed = {"forward": 0, "backward": 0}
    images_to_embeds = ZeroShotClassifier.embed

    def count_backward(gradient):
        passed["backward"] += len(gradient)

    def embed(classifier, images):
        passed["forward"] += len(images)
        embeds = images_to_embeds(classifier, images)
        if embeds.requires_grad:
            embeds.register_hook(count_backward)
        return embeds

    monkeypatch.setattr(ZeroShotClassifier, "embed", embed)
    attacks = ["pgd,eps=1/255,num_steps=5", "fgsm,eps=2/255"]
    evaluate_robustness(*fitted, [data], attacks, verdict=verdict, eight_bit=True, probes=False)

    told = capsys.readouterr().err
    assert "40 images in 1 set, under 2 attacks: at most 15 forward and 6 backward passes an image." in told
    assert 0 < passed["backward"] <= 40 * 6 and 40 < passed["forward"] <= 40 * 15
    if verdict == "last_iterate":  # every attack on every image
        assert passed["backward"] == 40 * 6


def test_nothing_is_told_without_progress(fitted, data, capsys):
    run(fitted, data)
    assert capsys.readouterr().err == ""


def test_rows_of_a_set_can_be_fixed(fitted):
    data = ZeroShotDataset(make_images(40, seed=9), fitted[1], None, "a photo of the {}", "own", sample_ids=[3, 30, 7])
    assert run(fitted, data).sets[0].verdicts["sample_id"] == [3, 30, 7]


def test_texts_are_encoded_once(fitted, monkeypatch):
    encoded, tokenizer = [], type(fitted[1].tokenizer)
    tokenize = tokenizer.__call__

    def count(self, texts, **options):
        encoded.append(texts[0])
        return tokenize(self, texts, **options)

    monkeypatch.setattr(tokenizer, "__call__", count)
    one, other = ["a photo of the {}"], ["an image of the {}"]
    sets = [
        ZeroShotDataset(make_images(8, seed=seed), fitted[1], None, template, name=str(seed))
        for seed, template in enumerate((one, other, one))
    ]
    evaluate_robustness(*fitted, sets, [PGD], batch_size=2, progress=False)
    assert encoded == ["a photo of the red disc", "an image of the red disc"]


# ---- What is left alone ----


def test_model_is_left_as_it_was(fitted, data):
    model, _ = fitted
    model.train()
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    random = torch.get_rng_state()
    model.zero_grad(set_to_none=True)
    run(fitted, data, max_samples=4)
    assert model.training and model.vision_model.training
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    model.eval()


def test_a_model_left_in_train_mode_with_dropout_is_evaluated_without_it(fitted, data):
    dropping = copy.deepcopy(fitted[0])
    for tower in (dropping.vision_model, dropping.text_model):
        for layer in tower.encoder.layers:
            layer.self_attn.dropout = 0.8
    dropping.train()
    for verdict in ("any_iterate", "last_iterate"):
        report, plain = (run((model, fitted[1]), data, verdict=verdict) for model in (dropping, fitted[0]))
        assert report.sets[0].verdicts == plain.sets[0].verdicts
    assert dropping.training


def test_half_precision_weights_are_evaluated_in_float32(fitted, data):
    model, processor = fitted
    half = make_model().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    report = evaluate_robustness(half, processor, [data], [PGD], max_samples=8, progress=False)
    full = evaluate_robustness(half.float(), processor, [data], [PGD], max_samples=8, progress=False)
    assert report.sets[0].verdicts == full.sets[0].verdicts
    assert report.protocol["dtype"] == "float32"


def test_what_was_passed_is_left_as_it_was(fitted, data):
    attacks = [dict(PGD)]
    run(fitted, data, attacks, max_samples=4)
    assert attacks == [PGD]


# ---- What cannot be ----


@pytest.mark.parametrize(
    ("sets", "attacks", "message"),
    [
        ([], [PGD], "no evaluation sets"),
        (["own", "own"], [PGD], "share a name"),
        (["own"], [{"attack": "pdg", "eps": "1/255"}], "no attack 'pdg'.*pgd"),
        (["own"], [{"attack": "pgd"}], "has no radius"),
        (["own"], ["pgd,num_steps=5"], "has no radius"),
        (["own"], [{"attack": "pgd", "eps": 4}], "4/255"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(fitted, data, sets, attacks, message):
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(*fitted, [data for _ in sets], attacks, progress=False)


def test_an_attack_that_cannot_run_is_refused_before_anything_is_spent(fitted, data):
    with pytest.raises(ValueError, match="takes no steps.*num_steps"):
        run(fitted, data, [{"attack": "apgd", "eps": "1/255", "steps": 3}])


def test_a_model_of_nan_weights_is_no_model_of_zero_accuracy(fitted, data):
    broken = copy.deepcopy(fitted[0])
    with torch.no_grad():
        broken.visual_projection.weight[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="NaN or infinite on images among the rows 0 to 39 of 'own'.*Check the weights"
    ):
        run((broken, fitted[1]), data)


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_an_attack_that_leaves_its_ball_is_found_out(fitted, data, monkeypatch, verdict):
    def cheat(images, points, *rest):
        return (points + 0.3).clamp(0, 1)

    monkeypatch.setattr(sys.modules["hf_pmgaft.attacks.pgd"], "step", cheat)
    with pytest.raises(RuntimeError, match="left its ball"):
        run(fitted, data, [{"attack": "pgd", "eps": "1/255"}], max_samples=4, verdict=verdict)


def test_classes_too_few_for_a_loss_are_refused(fitted):
    pytest.importorskip("pyautoattack")
    two = make_images(8).filter(lambda row: row["label"] < 2)
    data = ZeroShotDataset(two, fitted[1], ["red disc", "green disc"], "a photo of the {}", "two")
    targeted = {"attack": "apgd_t", "eps": "20/255", "num_steps": 20}
    for attack, needed in (({**CE, "loss": "dlr"}, 3), (targeted, 4)):
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
        run(fitted, data, [PGD, {"attack": "autoattack", "eps": "1/255"}])


def test_every_pass_is_in_float32_where_tensor_float_32_is_allowed(fitted, data):
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    seen = set()
    hook = fitted[0].register_forward_pre_hook(lambda *_: seen.add(getattr(matmul, name)))
    setattr(matmul, name, "tf32" if name == "fp32_precision" else True)
    try:
        run(fitted, data)
    finally:
        setattr(matmul, name, before)
        hook.remove()

    assert seen in ({"ieee"}, {False})


def test_a_model_of_several_dtypes_is_evaluated_in_float32(fitted, data):
    mixed = copy.deepcopy(fitted[0])
    mixed.visual_projection.bfloat16()
    whole = copy.deepcopy(mixed).float()

    assert run((mixed, fitted[1]), data).sets == run((whole, fitted[1]), data).sets
    assert mixed.visual_projection.weight.dtype == torch.bfloat16
