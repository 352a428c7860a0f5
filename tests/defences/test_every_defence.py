"""What all defences have in common: draws, batches, dtypes, parameters and families of encoders."""

from functools import cache

import pytest
import torch
from support import families, tiny

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.defences import DEFENCES
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.evaluation.heads import LinearProbe
from hf_pmgaft.models.backbones import get_encoder
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

every_defence = pytest.mark.parametrize("name", sorted(DEFENCES))
# What makes a test quicker
OPTIONS = {"hedge": {"num_steps": 4}, "r_tpt": {"num_views": 21}}
# Families that a defence serves, where these are not all
SERVED = {
    "clipure": families.DUAL,
    "clipure_released": families.DUAL,
    "r_tpt": ["CLIPModel of bigG's shape", "MetaClip2Model"],
}
SEEDS = torch.tensor([11, 12, 13, 14])


@cache
def model_of(family: str) -> torch.nn.Module:
    return families.make(family)


def pictures(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))


def defended(name: str, model: torch.nn.Module | None = None):
    """A defence, as an evaluation makes it, of a tiny model."""
    model = tiny.make_model() if model is None else model
    processor = tiny.make_processor()
    spec = DefenceSpec.of({"defence": name, **OPTIONS.get(name, {})})
    has_text = hasattr(model.config, "text_config")
    spec.check(model, processor, has_head=not has_text)

    if has_text:
        class_embeds = encode_class_names(model, processor, tiny.CLASS_NAMES)
    else:
        width = get_encoder(model).width(model.config)
        class_embeds = torch.nn.functional.normalize(torch.randn(4, width, generator=torch.Generator().manual_seed(1)))
    classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
    return spec.wrap(classifier, model, processor, tiny.CLASS_NAMES, ["a photo of the {}"])


@every_defence
def test_values_are_the_same_for_every_attacker_and_under_no_grad(name):
    defence, images = defended(name), pictures()
    point = images.clone().requires_grad_()
    through = defence(point, seeds=SEEDS)
    assert torch.equal(through, defence(point, seeds=SEEDS, attacker="straight_through"))
    with torch.no_grad():
        assert torch.equal(through, defence(images, seeds=SEEDS))


@every_defence
@pytest.mark.parametrize("attacker", ["through", "straight_through"])
def test_gradients_reach_every_image_and_no_parameter(name, attacker):
    model = tiny.make_model()
    frozen = next(model.parameters()).requires_grad_(False)
    point = pictures().requires_grad_()
    logits = defended(name, model)(point, seeds=SEEDS, attacker=attacker)
    gradient = torch.autograd.grad(logits[:, 0].sum(), point)[0]

    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p is frozen for p in model.parameters() if not p.requires_grad] == [True]


@every_defence
def test_attackers_that_differ_have_other_gradients_and_no_others_do(name):
    defence, images = defended(name), pictures(2)
    images[:, 0] = 0.001  # where a clip shows
    gradients = []
    for attacker in ("through", "straight_through"):
        point = images.clone().requires_grad_()
        logits = defence(point, seeds=SEEDS[:2], attacker=attacker)
        gradients.append(torch.autograd.grad(logits[:, 0].sum(), point)[0])
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7) == ("straight_through" not in DEFENCES[name].attackers)


@every_defence
def test_rows_one_by_one_are_those_of_the_batch(name):
    defence, images = defended(name), pictures()
    together = defence(images, seeds=SEEDS)
    alone = torch.cat([defence(images[i : i + 1], seeds=SEEDS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@every_defence
def test_seeds_tell_draws_apart(name):
    defence, images = defended(name), pictures()
    first, again, other = (defence(images, seeds=SEEDS + shift) for shift in (0, 0, 100))
    assert torch.equal(first, again)
    assert defence.is_random == DefenceSpec.parse(name).is_random
    assert ((first != other).any(1) == defence.is_random).all()


@pytest.mark.parametrize("name", sorted(set(DEFENCES) - {"clipure_released"}))
def test_a_defence_is_no_identity(name):
    defence, images = defended(name), pictures()
    assert ((defence(images, seeds=SEEDS) - defence.classifier(images)).abs().amax(1) > 1e-4).all()


@every_defence
@pytest.mark.parametrize("family", sorted(set(families.DUAL) - {"CLIPModel"}) + sorted(families.ENCODER))
def test_other_families_are_defended_or_refused(name, family):
    model = model_of(family)
    images = pictures(2)
    if family not in SERVED.get(name, [family]):
        with pytest.raises(ValueError, match="no text tower|R-TPT"):
            defended(name, model)
        return
    defence = defended(name, model)
    logits = defence(images, seeds=SEEDS[:2])
    assert logits.shape == (2, 4) and logits.isfinite().all()


@every_defence
def test_a_head_is_defended_or_refused(name):
    model, processor = tiny.make_model(), tiny.make_processor()
    data = ZeroShotDataset(tiny.make_images(16), processor, name="own")
    spec = DefenceSpec.of({"defence": name, **OPTIONS.get(name, {})})
    if name == "r_tpt":
        with pytest.raises(ValueError, match="R-TPT tunes the prompts of class names, and a head"):
            spec.check(model, processor, has_head=True)
        return
    spec.check(model, processor, has_head=True)
    bare = LinearProbe(data).fit(model, processor, data)
    defence = spec.wrap(bare, model, processor)
    images = torch.stack([data[row]["images"] for row in range(4)])
    with torch.no_grad():
        logits = defence(images, seeds=SEEDS)
        if defence.has_embeds:
            expected = bare.logits(defence.embed(images, seeds=SEEDS))
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert logits.shape == (4, 4) and logits.isfinite().all()
    if name != "clipure_released":
        assert (logits - bare(images)).abs().max() > 1e-3
