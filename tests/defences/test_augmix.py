"""AugMix: its operations are those of Pillow, and its mixtures those of the paper."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hf_pmgaft.defences import augmix as module
from hf_pmgaft.defences.augmix import OPERATIONS, augmix

SIZE = 60
SEED = torch.tensor([5])


def picture(seed: int = 0) -> Image.Image:
    """A smooth image of 8 bits that is neither black nor white anywhere."""
    rough = np.random.default_rng(seed).integers(20, 230, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((SIZE, SIZE), Image.BICUBIC)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()[None] / 255


def affine(*numbers: float):
    return lambda image: image.transform(image.size, Image.AFFINE, numbers, resample=Image.BILINEAR)


# By operation: level, sign, and what Pillow makes of it
IN_PILLOW = [
    ("autocontrast", 0.5, 1, ImageOps.autocontrast),
    ("equalise", 0.5, 1, ImageOps.equalize),
    ("posterise", 0.5, 1, lambda image: ImageOps.posterize(image, 4)),
    ("rotate", 0.7, 1, lambda image: image.rotate(2, resample=Image.BILINEAR)),
    ("rotate", 0.4, -1, lambda image: image.rotate(-1, resample=Image.BILINEAR)),
    ("solarise", 1.0, 1, lambda image: ImageOps.solarize(image, 256 - 25)),
    ("shear_x", 1.0, -1, affine(1, -0.03, 0, 0, 1, 0)),
    ("shear_y", 0.5, 1, affine(1, 0, 0, 0.015, 1, 0)),
    ("translate_x", 1.0, 1, affine(1, 0, 2, 0, 1, 0)),
    ("translate_y", 0.6, -1, affine(1, 0, 0, 0, 1, -1)),
]


@pytest.mark.parametrize(("name", "level", "sign", "in_pillow"), IN_PILLOW, ids=lambda value: str(value)[:12])
def test_operations_are_those_of_pillow(name, level, sign, in_pillow):
    image = picture()
    if name == "solarise":
        image = ImageOps.autocontrast(image)  # with levels that are bright enough
    (operation,) = [each for each in OPERATIONS if each.__name__ == name]
    ours = operation(tensor(image), torch.tensor([level]), torch.tensor([float(sign)]))
    theirs = tensor(in_pillow(image))
    assert (theirs - tensor(image)).abs().max() > 0.01
    inside = (..., slice(4, -4), slice(4, -4))  # they differ in how the border is read
    assert (ours - theirs)[inside].abs().max() <= 1.51 / 255
    assert set(IN_PILLOW_NAMES) == {each.__name__ for each in OPERATIONS}


IN_PILLOW_NAMES = [name for name, *_ in IN_PILLOW]


def test_what_has_one_grey_level_stays_as_it_is():
    grey = torch.full((1, 3, 8, 8), 0.4)
    for name in ("autocontrast", "equalise"):
        operation = getattr(module, name)
        torch.testing.assert_close(operation(grey, torch.ones(1), torch.ones(1)), grey, atol=1e-3, rtol=0)


def test_a_mixture_is_the_image_and_three_chains_by_weights_that_add_up(monkeypatch):
    def shift(images, level, sign):
        return images + 1.0

    monkeypatch.setattr(module, "OPERATIONS", [shift])
    images = torch.zeros(4000, 1, 1, 1)
    added = augmix(images, SEED).flatten()
    # (1 - m) times the mean length by weights: 1/2 of 2 on average, between 0 and 3
    assert added.min() >= 0 and added.max() <= 3 and 0.97 < added.mean() < 1.03
    # Beta(1, 1) spreads evenly, and Dirichlet(1, 1, 1) weighs the lengths 1, 2, 3: variance of the product
    second_moment = (1 / 3) * (4 + (2 / 3) * (1 / 2))
    assert added.var().item() == pytest.approx(second_moment - 1, abs=0.03)


def test_every_operation_and_length_is_drawn_and_no_image_hears_of_others():
    seen = []

    def spy(operation):
        def operate(images, level, sign):
            seen.append((operation.__name__, len(images)))
            assert ((level >= 0.1) & (level <= 1)).all() and set(sign.tolist()) <= {-1.0, 1.0}
            return operation(images, level, sign)

        return operate

    images = torch.cat([tensor(picture(seed)) for seed in range(60)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OPERATIONS", [spy(operation) for operation in OPERATIONS])
        mixed = augmix(images, SEED)
    assert {name for name, _ in seen} == set(IN_PILLOW_NAMES)
    # 60 images with 3 chains of 2 operations on average
    assert 300 < sum(count for _, count in seen) < 420
    assert mixed.min() >= -1e-6 and mixed.max() <= 1 + 1e-6
    assert ((mixed - images).flatten(1).abs().amax(1) > 0).all()
    assert torch.equal(mixed, augmix(images, SEED)) and not torch.equal(mixed, augmix(images, SEED + 1))

    other = images.clone()
    other[1:] = 0.5
    torch.testing.assert_close(augmix(other, SEED)[0], mixed[0])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_gradients_reach_the_image(operation):
    image = tensor(picture()).requires_grad_()
    total = operation(image, torch.tensor([0.9]), torch.tensor([1.0])).sum()
    gradient = torch.autograd.grad(total, image)[0]
    assert gradient.isfinite().all() and (gradient != 0).float().mean() > 0.9
    if operation.__name__ in ("equalise", "posterise"):  # the identity in place of nothing
        assert torch.equal(gradient, torch.ones_like(gradient))
