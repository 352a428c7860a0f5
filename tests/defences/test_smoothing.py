"""Normal noise before the encoder."""

import pytest
import torch
import torch.nn.functional as F
from support.defended import GOLDEN, double, is_golden, toy

from hf_pmgaft.defences import Smoothing

GREY = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 60, 60)


@pytest.mark.parametrize("loss", ["eot", "soft"])
def test_golden_noise_gives_the_golden_losses_and_gradients(loss):
    case = GOLDEN["smoothing"]["attack"]
    classifier, images, _ = toy()
    defence, noise = Smoothing(classifier, sigma=case["sigma"]), double(case["unit_noise"])

    point = images[:1].clone().requires_grad_()
    log_p = F.log_softmax(classifier(defence.add(point, noise)), dim=1)[:, case["label"]]
    value = -log_p.mean() if loss == "eot" else -log_p.exp().mean().log()
    is_golden(value.detach(), case[f"{loss}_loss"])
    is_golden(torch.autograd.grad(value, point)[0], case[f"gradient_{loss}"])


def test_noise_is_normal_has_the_deviation_of_every_pixel_and_is_not_clipped():
    defence = Smoothing(None, sigma="51/255")
    assert defence.sigma == 0.2
    noise = (defence.purified(GREY, torch.arange(3)) - GREY).flatten(1) / 0.2

    assert noise.mean(1).abs().max() < 0.06 and (noise.std(1) - 1).abs().max() < 0.04
    for limit, share in ((1, 0.6827), (2, 0.9545)):
        assert ((noise.abs() < limit).float().mean(1) - share).abs().max() < 0.03
    assert (torch.corrcoef(noise) - torch.eye(3)).abs().max() < 0.06


def test_noise_has_the_images_size_and_type():
    defence = Smoothing(toy()[0])
    images = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    noisy = defence.purified(images, torch.arange(2))
    assert noisy.shape == images.shape and noisy.dtype == images.dtype


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (0, "You passed the factor 0, but it must be above 0"),
        ("much", "'much', which is no number"),
        (25, "You passed sigma=25, but pixels go from 0 to 1.* write 25/255"),
    ],
)
def test_what_is_no_deviation_is_refused(sigma, message):
    with pytest.raises(ValueError, match=message):
        Smoothing(None, sigma=sigma)
