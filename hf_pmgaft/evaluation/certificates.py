"""Certificates of images: the lower bound beside the upper one that attacks give (Cohen et al., ICML 2019).

An image's noise is encoded once. What a class list makes of it is a matrix product, so that further lists cost next
to nothing; each certificate then holds with its own confidence, not all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..attacks.ball import parse_radius
from ..attacks.inputs import check_images, check_not_nan, check_seeds
from ..defences import Smoothing
from ..defences.certificate import Certificate, largest_radius
from ..modes import at_least_float32
from ..noise import draw_seeds
from ..registry import check_count


class NoiseEmbeds(NamedTuple):
    """Embeddings of one image under noise, of unit norm.

    Args:
        selection (`torch.Tensor`): `[N,D]`, of the draws that pick a class.
        estimation (`torch.Tensor`): `[N,D]`, of the draws that bound its probability, all of them others.
    """

    selection: torch.Tensor
    estimation: torch.Tensor


def certify(
    defence: Smoothing,
    images: torch.Tensor,
    seeds: torch.Tensor,
    *,
    selection: int = 100,
    draws: int = 1000,
    alpha: float = 0.001,
    batch_size: int = 128,
) -> list[Certificate]:
    """Finds for each image a class, and the L2 radius within which the smoothed classifier keeps it.

    Labels take no part. A certificate says nothing of L-inf, and its radius is one of the images' own pixels: the same
    radius is less on larger images. No image reaches more than
    [`largest_radius`] of the draws: 0.62 of 1000 at sigma 0.25.

    Args:
        defence (`Smoothing`): The smoothed classifier, its model in eval mode and float32.
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1].
        seeds (`torch.Tensor`): `[B]`, int64. All draws of an image follow from its seed, whatever stands beside it.
        selection (`int`): Draws that pick the class.
        draws (`int`): Other draws, that bound its probability (the authors: 100,000).
        alpha (`float`): How probable it may be that an image's certificate does not hold, in (0,1).
        batch_size (`int`): Draws that are encoded at once.

    Returns:
        `list[Certificate]`: Predictions, -1 of an abstention, and radii.

    Raises:
        ValueError: for another defence, bad images or seeds, and draws that are too few for alpha.
        FloatingPointError: if logits are NaN or infinite.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names, "a photo of the {}")
        >>> defence = Smoothing(ZeroShotClassifier.from_model(model, processor, class_embeds), sigma=0.1)
        >>> certificates = certify(defence, images[:4], torch.arange(4), selection=10, draws=50)
        >>> [certificate.prediction for certificate in certificates], labels[:4].tolist()
        ([0, 1, 2, 3], [0, 1, 2, 3])
        >>> certified_accuracy(certificates, labels[:4].tolist(), radius=0.1)
        1.0
    """
    _check_defence(defence)
    largest_radius(check_count("draws", draws), alpha, defence.sigma)  # refuses too few
    check_count("selection", selection)
    check_count("batch_size", batch_size)
    images = check_images(images)
    seeds = check_seeds(seeds, images)

    certificates = []
    for image, seed in zip(images, seeds, strict=True):
        noise = noise_embeds(defence, image, seed, selection=selection, draws=draws, batch_size=batch_size)
        certificates.append(certify_embeds(defence, noise, alpha=alpha))
    return certificates


@torch.no_grad()
def noise_embeds(
    defence: Smoothing,
    image: torch.Tensor,
    seed: torch.Tensor,
    *,
    selection: int = 100,
    draws: int = 1000,
    batch_size: int = 128,
) -> NoiseEmbeds:
    """Encodes one image, `[3,H,W]`, under the noise of all of its draws, for any class list.

    Its arguments are those of [`certify`]; `seed` is a tensor of one whole number. The first draws are the same
    however many follow.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> noise = noise_embeds(Smoothing(classifier), images[0], torch.tensor(7), selection=10, draws=50)
        >>> two_classes = Smoothing(classifier.replace(class_embeds=class_embeds[:2]))
        >>> certificates = [certify_embeds(each, noise, alpha=0.05) for each in (Smoothing(classifier), two_classes)]
    """
    numbers = torch.arange(selection + draws, device=seed.device)
    picks = draw_seeds(seed.expand(selection), "selection", numbers[:selection])
    bounds = draw_seeds(seed.expand(draws), "estimation", numbers[:draws])
    seeds = torch.cat([picks, bounds])

    # All passes are of one size, by which kernels round; the last one is filled up.
    batch_size = min(batch_size, len(seeds))
    passes = math.ceil(len(seeds) / batch_size)
    filled = torch.arange(passes * batch_size, device=seeds.device).clamp(max=len(seeds) - 1)
    embeds = []
    for rows in filled.split(batch_size):
        noisy = defence.embed(image.expand(batch_size, *image.shape), seeds[rows])
        embeds.append(F.normalize(at_least_float32(noisy), dim=-1))
    return NoiseEmbeds(*torch.cat(embeds)[: len(seeds)].split([selection, draws]))


@torch.no_grad()
def certify_embeds(defence: Smoothing, noise: NoiseEmbeds, *, alpha: float = 0.001) -> Certificate:
    """The certificate of an image whose noise is encoded, against the classes of a defence.

    The defence has the model and the sigma of the noise. Its classes must not be chosen by looking at it.

    Example: see [`noise_embeds`].
    """
    prediction, successes = agreement(defence, noise)
    return Certificate.of_agreement(prediction, successes, len(noise.estimation), defence.sigma, alpha)


@torch.no_grad()
def agreement(defence: Smoothing, noise: NoiseEmbeds) -> tuple[int, int]:
    """The class that an image's draws of selection pick, and how many of those of estimation agree on it.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names, "a photo of the {}")
        >>> defence = Smoothing(ZeroShotClassifier.from_model(model, processor, class_embeds), sigma=0.01)
        >>> agreement(defence, noise_embeds(defence, images[2], torch.tensor(7), selection=10, draws=50))
        (2, 50)
    """
    selection = _counts(defence.logits(noise.selection))
    prediction = selection.index(max(selection))
    return prediction, _counts(defence.logits(noise.estimation))[prediction]


def certified_accuracy(certificates: Sequence[Certificate], labels: Sequence[int], radius: float | str) -> float:
    """The share of images of which the class is right, and certified at a radius in L2 or a larger one.

    Raises:
        ValueError: for no images, another number of labels than of certificates, and what is no radius.

    Example:
        >>> certificates = [Certificate(3, 0.5), Certificate(3, 0.2), Certificate(-1, 0.0)]
        >>> certified_accuracy(certificates, [3, 3, 3], radius=0.25)
        0.333...
    """
    radius = parse_radius(radius, "l2")
    if not certificates or len(certificates) != len(labels):
        raise ValueError(
            f"You passed {len(labels)} labels for {len(certificates)} certificates. Pass one for each of at least one."
        )
    held = [certificate.holds(int(label), radius) for certificate, label in zip(certificates, labels, strict=True)]
    return sum(held) / len(held)


def _counts(logits: torch.Tensor) -> list[int]:
    """How often each class has the largest logit; of equal ones the first."""
    check_not_nan(logits)
    return torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1]).tolist()


def _check_defence(defence: Smoothing) -> None:
    if not isinstance(defence, Smoothing):
        raise ValueError(
            f"You passed {type(defence).__name__}, of which nothing is certified. Pass Smoothing(classifier, "
            "sigma=0.25)."
        )
