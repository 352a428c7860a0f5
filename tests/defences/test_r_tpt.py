"""R-TPT: golden values and gradients, the text path of prompts, and whom it cannot serve."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from support import families, tiny
from support.defended import GOLDEN, double, is_golden, toy

from hf_pmgaft.defences import RTPT
from hf_pmgaft.defences.augmix import augmix
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

CASE = GOLDEN["r_tpt"]
VIEWS = double(CASE["views"])


def golden_defence() -> RTPT:
    classifier, _, _ = toy()
    settings = CASE["settings"]
    class_embeds, M = classifier.class_embeds, double(CASE["M"])
    return RTPT(
        classifier.replace(logit_scale=settings["logit_scale"]),
        double(CASE["ctx"]),
        lambda context: F.normalize(class_embeds + context.flatten() @ M, dim=1),
        num_views=len(VIEWS),
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        share=settings["selection"],
        neighbours=settings["neighbours"],
        temperature=settings["temperature"],
    )


def features(defence: RTPT, views: torch.Tensor) -> torch.Tensor:
    return F.normalize(defence.classifier.embed(views), dim=1)


def tiny_defence(name: str = "r_tpt,num_views=24", model=None) -> RTPT:
    model = tiny.make_model() if model is None else model
    processor = tiny.make_processor()
    class_embeds = encode_class_names(model, processor, tiny.CLASS_NAMES)
    classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
    return DefenceSpec.parse(name).wrap(classifier, model, processor, tiny.CLASS_NAMES)


# ---- Golden values ----


def test_views_count_by_the_golden_weights():
    defence = golden_defence()
    is_golden(defence.weights(features(defence, VIEWS)), CASE["weights"])


def test_the_context_is_tuned_to_the_golden_one():
    defence, contexts = golden_defence(), []
    encode = defence.encode_classes

    def watched(context):
        contexts.append(context.detach())
        return encode(context)

    defence.encode_classes = watched
    defence.tuned(features(defence, VIEWS), *defence.untuned())
    is_golden(contexts[0], CASE["ctx"])
    is_golden(contexts[1], CASE["tuned_ctx"])


@pytest.mark.parametrize(
    ("attacker", "golden"),
    [("through", "gradient_through"), ("straight_through", "gradient_prompt_and_weights_constant")],
)
def test_logits_and_gradients_are_the_golden_ones(attacker, golden):
    defence, point = golden_defence(), VIEWS.clone().requires_grad_()
    logits = defence.vote(point, defence.untuned(), attacker)
    is_golden(logits.detach(), CASE["logits"])
    loss = F.cross_entropy(logits, torch.tensor(CASE["label"]))
    is_golden(loss.detach(), CASE["loss"], 1e-8)
    is_golden(torch.autograd.grad(loss, point)[0], CASE[golden], 1e-8)


def test_the_step_is_in_the_graph():
    # Where the gradient is as small as AdamW's own constant, the step is not its sign alone.
    defence, point = golden_defence(), VIEWS.clone().requires_grad_()
    defence.classifier.logit_scale = 1e-3
    class_embeds = defence.tuned(features(defence, point), *defence.untuned())
    gradient = torch.autograd.grad(class_embeds[0].sum(), point)[0]

    def first(views):
        return defence.tuned(features(defence, views), *defence.untuned())[0].sum().item()

    place = gradient.abs().flatten().argmax()
    step = torch.zeros(VIEWS.numel(), dtype=torch.float64).index_fill(0, place, 1e-5).view_as(VIEWS)
    slope = (first(VIEWS + step) - first(VIEWS - step)) / 2e-5
    assert gradient.flatten()[place].item() == pytest.approx(slope, rel=1e-4) and abs(slope) > 1e-5


# ---- The text path ----


def test_an_untuned_context_is_the_template_of_its_words():
    model, processor = tiny.make_model(), tiny.make_processor()
    _, class_embeds = tiny_defence(model=model).untuned()
    expected = encode_class_names(model, processor, tiny.CLASS_NAMES, "a photo of a {}.")
    torch.testing.assert_close(class_embeds, expected)


def test_augmix_is_on_top_of_the_crops_and_the_first_view_stays_plain():
    images, seed = torch.rand(1, 3, tiny.SIZE, tiny.SIZE), torch.tensor([7])
    plain, mixed = tiny_defence(), tiny_defence("r_tpt,num_views=24,augmix=true")
    crops, views = plain.views(images, seed), mixed.views(images, seed)
    assert torch.equal(views[0], crops[0])
    torch.testing.assert_close(views[1:], augmix(crops[1:], seed))
    assert ((views[1:] - crops[1:]).flatten(1).abs().amax(1) > 0).all()

    spec = DefenceSpec.parse("r_tpt,augmix=true")
    assert spec.options["augmix"] is True and spec.title == "R-TPT (augmix=True)"
    point = images.clone().requires_grad_()
    for attacker in ("through", "straight_through"):
        total = mixed(point, seed, attacker)[0, 0]
        assert (torch.autograd.grad(total, point)[0] != 0).any()


def test_every_image_begins_anew_and_the_model_stays_as_it_was():
    model = tiny.make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    defence = tiny_defence(model=model)
    images, seeds = torch.rand(3, 3, 20, 20), torch.tensor([5, 6, 5])
    images[2] = images[0]

    logits = defence(images, seeds)
    assert torch.equal(logits[0], logits[2]) and not torch.equal(logits[0], logits[1])
    assert not model.text_model.embeddings.token_embedding._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_prompts_differ_from_what_they_were_and_from_image_to_image():
    defence = tiny_defence()
    context, class_embeds = defence.untuned()
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
    images[1] /= 4
    tuned = []
    for row in range(2):
        views = defence.views(images[row : row + 1], torch.tensor([row]))
        tuned.append(defence.tuned(features(defence, views).detach(), context, class_embeds))
    assert (tuned[0] - class_embeds).abs().max() > 1e-3
    assert (tuned[0] - tuned[1]).abs().max() > 1e-4


# ---- Refusals ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r_tpt,num_views=20", "20 views with 20 neighbours, but a view has only 19 others"),
        ("r_tpt,share=0.01", "share=0.01, which of 64 views are 0"),
        ("r_tpt,share=1.5", "share=1.5, which of 64 views are 96"),
        ("r_tpt,temperature=0", "must be above 0"),
        ("r_tpt,learning_rate=0", "must be above 0"),
        ("r_tpt,weight_decay=-1", "cannot take weight_decay=-1. Pass a number of 0 or more"),
        ("r_tpt,weight_decay=high", "cannot take weight_decay='high'. Pass a number"),
    ],
)
def test_what_cannot_run_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        DefenceSpec.parse(text)


def test_whom_it_cannot_serve_is_refused():
    spec, processor = DefenceSpec.parse("r_tpt"), tiny.make_processor()
    check = partial(spec.check, processor=processor, has_head=False)
    check(tiny.make_model())
    with pytest.raises(ValueError, match="a head has learned its classes from images"):
        spec.check(tiny.make_model(), processor, has_head=True)
    with pytest.raises(ValueError, match="tunes tokens in the text tower of CLIPModel and MetaClip2Model"):
        check(families.make("SiglipModel"))
    with pytest.raises(ValueError, match="with TextContext, whose learned prompts stand where R-TPT tunes its own"):
        check(make_tuning("text_context", {"num_tokens": 4}).prepare(tiny.make_model()))
    short = tiny.make_model()
    short.config.text_config.max_position_embeddings = 8
    classifier, _, _ = toy()
    with pytest.raises(ValueError, match="as long as 'blue square' take 9 tokens of the model's 8"):
        spec.wrap(classifier, short, processor, tiny.CLASS_NAMES[:3])
