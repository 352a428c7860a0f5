"""What makes a robustness number smell: signs that an attack was weak or that gradients are masked.

After Carlini et al. (2019, arXiv 1902.06705), Athalye et al. (ICML 2018, arXiv 1802.00420) and AutoAttack's own
checks. No flag proves a number right; each says why it should not be believed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..attacks.any_iterate import first_fooled
from ..attacks.ball import parse_radius
from ..attacks.losses import LOSSES, correct
from ..attacks.pgd import pgd
from ..attacks.spec import Spec, attack_name, norm_of, threat_name
from ..modes import frozen
from ..noise import uniform_noise
from .intervals import wilson_interval
from .report import SetResult

PROBE_SIZE = 32  # images of a set that the probes look at
WEAK_ATTACK_GAP = 0.05  # of the images, beyond doubt: what margin attacks may find that cross-entropy missed
BLACK_BOX_GAP = 0.002  # of the images, beyond doubt: what a black-box attack may find that white-box ones missed
HUGE_EPS = 0.5  # in L-inf; every image can become uniformly grey
HUGE_EPS_ACCURACY = 0.1
NOISE_DRAWS = 4

Flag = dict[str, str]


def probe(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    headline: Mapping[str, Any],
    name: str = "set",
) -> tuple[list[Flag], torch.Tensor]:
    """Looks at a classifier on a few images, most of which it should get right.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`), seeds (`torch.Tensor`): A batch.
        headline (`dict`): The attack whose ball random noise is drawn from.
        name (`str`): Of the set, for the flags.

    Returns:
        The flags raised, and which images random noise in the ball fools, `[B]`: see [`noise_flag`].
    """
    flags = []
    with frozen(classifier), torch.no_grad():
        logits, again = classifier(images).float(), classifier(images).float()
        right = correct(logits, labels)
        if (logits - again).abs().max() > 1e-4 * logits.abs().max().clamp_min(1e-6):
            flags.append(_flag("random", name, "two forward passes differ, so that attacks follow a moving target"))
        if logits.min() >= 0 and logits.max() <= 1 and (logits.sum(1) - 1).abs().max() < 1e-4:
            flags.append(_flag("probabilities", name, "the classifier returns probabilities in place of logits"))
        if not right.any():
            return flags, torch.zeros_like(right)
        images, labels, seeds = images[right], labels[right], seeds[right]
        flags += _zero_gradients(classifier, images, labels, name)
        huge = first_fooled(
            pgd, classifier, images, labels, eps=HUGE_EPS, norm="linf", num_steps=20, loss="margin", seeds=seeds
        )
        accuracy = correct(classifier(huge).float(), labels).float().mean().item()
        if accuracy > HUGE_EPS_ACCURACY:
            message = f"{accuracy:.0%} of {len(images)} images withstand PGD at radius {HUGE_EPS}, where none can"
            flags.append(_flag("huge radius", name, message))
        fooled = torch.zeros_like(right)
        fooled[right] = _fooled_by_noise(classifier, images, labels, seeds, headline)
    return flags, fooled


def noise_flag(fooled: Sequence[bool], robust: Sequence[bool], name: str) -> list[Flag]:
    """A flag if random noise fools images that the attack left standing."""
    found = sum(noise and stands for noise, stands in zip(fooled, robust, strict=True))
    if wilson_interval(found / max(len(fooled), 1), len(fooled))[0] <= BLACK_BOX_GAP:
        return []
    message = f"random noise in the ball fools {found} of {len(fooled)} images that the attack did not"
    return [_flag("noise", name, message)]


def verdict_flags(result: SetResult, specs: Sequence[Spec]) -> list[Flag]:
    """Flags from the verdicts of one set: each attack of a threat went on from what the ones before it left."""
    flags = []
    for threat in result.threats:
        names = {attack_name(spec): spec for spec in specs if norm_of(spec) and threat_name(spec) == threat}
        flags += _weak_attack(result, names) + _black_box(result, names)
    return flags


def _black_box(result: SetResult, names: Mapping[str, Spec]) -> list[Flag]:
    """A flag if an attack without gradients finds what those with gradients did not."""
    white = [result.attacks[name] for name, spec in names.items() if spec["attack"] != "square"]
    black = [result.attacks[name] for name, spec in names.items() if spec["attack"] == "square"]
    gap = min(white) - min(black) if white and black else 0.0
    if wilson_interval(max(gap, 0.0), result.num_samples)[0] <= BLACK_BOX_GAP:
        return []
    message = f"Square without gradients fools {gap:.1%} of the images that the attacks with them did not"
    return [_flag("black box", result.name, message)]


def _weak_attack(result: SetResult, names: Mapping[str, Spec]) -> list[Flag]:
    """A flag if cross-entropy attacks leave much that attacks on the margin find."""
    simple = [name for name, spec in names.items() if _loss(spec) == "ce"]
    strong = [name for name, spec in names.items() if _loss(spec) != "ce" and spec["attack"] != "square"]
    if not simple or not strong:
        return []
    gap = result.attacks[simple[-1]] - min(result.attacks[name] for name in strong)
    if wilson_interval(max(gap, 0.0), result.num_samples)[0] <= WEAK_ATTACK_GAP:
        return []
    message = f"{simple[-1]} leaves {gap:.1%} of the images standing that attacks on the margin fool"
    return [_flag("weak attack", result.name, message)]


def _loss(spec: Spec) -> str:
    return spec.get("loss", "ce" if spec["attack"] == "apgd" else "margin")


def _zero_gradients(classifier, images, labels, name) -> list[Flag]:
    flags = []
    for loss in ("ce", "margin"):
        with torch.enable_grad():
            points = images.detach().clone().requires_grad_()
            values = LOSSES[loss](classifier(points).float(), labels).sum()
            gradient = torch.autograd.grad(values, points, allow_unused=True)[0] if values.requires_grad else None
        gradient = torch.zeros_like(images) if gradient is None else gradient
        zero = (gradient.flatten(1).abs().amax(1) == 0).float().mean().item()
        if zero > 0.05:
            message = f"the gradient of {loss} is exactly zero for {zero:.0%} of {len(images)} images"
            flags.append(_flag("zero gradients", name, message))
    return flags


def _fooled_by_noise(classifier, images, labels, seeds, headline) -> torch.Tensor:
    fooled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    norm = norm_of(headline)
    if norm is None:
        return fooled
    eps = parse_radius(headline["eps"], norm)
    for draw in range(NOISE_DRAWS):
        signs = (2 * uniform_noise(seeds, images.shape[1:], stream=700 + draw) - 1).sign()
        length = {"linf": 1.0, "l2": images[0].numel() ** 0.5, "l1": images[0].numel()}[norm]
        fooled |= ~correct(classifier((images + eps / length * signs).clamp(0, 1)).float(), labels)
    return fooled


def _flag(kind: str, name: str, message: str) -> Flag:
    return {"flag": kind, "set": name, "message": message}
