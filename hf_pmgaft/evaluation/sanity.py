"""Signs that a robustness number should not be believed yet: the attack was weak, or gradients are masked.

After Carlini et al. (2019, arXiv 1902.06705), Athalye et al. (ICML 2018, arXiv 1802.00420) and AutoAttack's own
checks. No flag proves a number wrong, and none raised proves it right; each says what to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..attacks.any_iterate import first_fooled
from ..attacks.losses import LOSSES, correct
from ..attacks.pgd import pgd
from ..attacks.spec import AttackSpec
from ..modes import frozen
from ..noise import uniform_noise
from .intervals import paired_difference, wilson_interval
from .outcomes import worst_case
from .report import SetResult

PROBE_SIZE = 32  # images of a set that the probes look at
WEAK_ATTACK_GAP = 0.05  # of the images, beyond doubt: what margin attacks may find that cross-entropy missed
BLACK_BOX_GAP = 0.002  # of the images, beyond doubt: what a black-box attack may find that white-box ones missed
DEFENDED_GAP = 0.002  # of the images, beyond doubt: what one attacker of a defence may find that others missed
ZERO_GRADIENTS = 0.05  # of the images: how many may have a gradient of exactly zero
HUGE_EPS = 0.5  # in L-inf; every image can become uniformly grey
HUGE_EPS_ACCURACY = 0.1
NOISE_DRAWS = 4
_NOISE_STREAM = 700

Classifier = Callable[[torch.Tensor], torch.Tensor]
Flag = dict[str, str]


# ---- Probes on a few images ----


def probe(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    headline: AttackSpec,
    name: str = "set",
) -> tuple[list[Flag], torch.Tensor]:
    """Looks at a classifier on a few images, most of which it should get right.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`), seeds (`torch.Tensor`): A batch.
        headline (`AttackSpec`): The attack whose ball random noise is drawn from.
        name (`str`): Of the set, for the flags.

    Returns:
        The flags raised, and which images random noise in the ball fools, `[B]`: see [`noise_flag`].

    Example:
        >>> from hf_pmgaft import AttackSpec, ZeroShotClassifier, encode_class_names
        >>> embeds = encode_class_names(model, processor, class_names, "a photo of the {}")
        >>> classifier = ZeroShotClassifier.from_model(model, processor, embeds)
        >>> flags, fooled = probe(classifier, images, labels, torch.arange(16), AttackSpec.parse("pgd,eps=4/255"))
        >>> [flag["flag"] for flag in flags]
        []
    """
    with frozen(classifier), torch.no_grad():
        logits = classifier(images).float()
        again = classifier(images).float()
        is_right = correct(logits, labels)
        flags = _random_flag(logits, again, name) + _probabilities_flag(logits, name)

        # The other probes look at what an attack could change.
        fooled = torch.zeros_like(is_right)
        if not is_right.any():
            return flags, fooled
        images, labels, seeds = images[is_right], labels[is_right], seeds[is_right]
        flags += _zero_gradient_flags(classifier, images, labels, name)
        flags += _huge_radius_flag(classifier, images, labels, seeds, name)
        fooled[is_right] = _fooled_by_noise(classifier, images, labels, seeds, headline)
    return flags, fooled


def noise_flag(fooled: Sequence[bool], robust: Sequence[bool], name: str) -> list[Flag]:
    """A flag if random noise fools images that the attack left standing."""
    missed = sum(by_noise and stands for by_noise, stands in zip(fooled, robust, strict=True))
    if not _is_beyond_doubt(missed / max(len(fooled), 1), len(fooled), BLACK_BOX_GAP):
        return []
    message = f"random noise in the ball fools {missed} of {len(fooled)} images that the attack did not"
    return [_flag("noise", name, message)]


def _random_flag(logits: torch.Tensor, again: torch.Tensor, name: str) -> list[Flag]:
    differs = (logits - again).abs().max() > 1e-4 * logits.abs().max().clamp_min(1e-6)
    if not differs:
        return []
    return [_flag("random", name, "two forward passes differ, so that attacks follow a moving target")]


def _probabilities_flag(logits: torch.Tensor, name: str) -> list[Flag]:
    adds_up = (logits.sum(1) - 1).abs().max() < 1e-4
    if not (logits.min() >= 0 and logits.max() <= 1 and adds_up):
        return []
    return [_flag("probabilities", name, "the classifier returns probabilities in place of logits")]


def _zero_gradient_flags(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, name: str) -> list[Flag]:
    flags = []
    for loss in ("ce", "margin"):
        gradient = _gradient(classifier, images, labels, loss)
        zero = (gradient.flatten(1).abs().amax(1) == 0).float().mean().item()
        if zero > ZERO_GRADIENTS:
            message = f"the gradient of {loss} is exactly zero for {zero:.0%} of {len(images)} images"
            flags.append(_flag("zero gradients", name, message))
    return flags


@torch.enable_grad()
def _gradient(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, loss: str) -> torch.Tensor:
    """Gradient of a loss to the images; zero where it does not depend on them."""
    points = images.detach().clone().requires_grad_()
    total = LOSSES[loss](classifier(points).float(), labels).sum()
    if not total.requires_grad:
        return torch.zeros_like(images)
    gradient = torch.autograd.grad(total, points, allow_unused=True)[0]
    return torch.zeros_like(images) if gradient is None else gradient


def _huge_radius_flag(
    classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, seeds: torch.Tensor, name: str
) -> list[Flag]:
    options = {"eps": HUGE_EPS, "norm": "linf", "num_steps": 20, "loss": "margin"}
    adversarial = first_fooled(pgd, classifier, images, labels, **options, seeds=seeds)
    accuracy = correct(classifier(adversarial).float(), labels).float().mean().item()
    if accuracy <= HUGE_EPS_ACCURACY:
        return []
    message = f"{accuracy:.0%} of {len(images)} images withstand PGD at radius {HUGE_EPS}, where none can"
    return [_flag("huge radius", name, message)]


def _fooled_by_noise(
    classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, seeds: torch.Tensor, headline: AttackSpec
) -> torch.Tensor:
    """Tells which images random noise from the corners of the ball fools, `[B]`; none if the threat is no ball."""
    fooled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    if headline.norm is None:
        return fooled

    pixels = images[0].numel()
    length = {"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[headline.norm]  # of a vector of signs
    for draw in range(NOISE_DRAWS):
        signs = (2 * uniform_noise(seeds, images.shape[1:], stream=_NOISE_STREAM + draw) - 1).sign()
        points = (images + headline.radius / length * signs).clamp(0, 1)
        fooled |= ~correct(classifier(points).float(), labels)
    return fooled


# ---- Flags from the verdicts ----


def verdict_flags(result: SetResult, specs: Sequence[AttackSpec]) -> list[Flag]:
    """Flags from the verdicts of one set: each attack of a threat went on from what the ones before it left.

    Segmentation has none: what stands of an image is a share of its pixels.
    """
    if result.figure.is_of_pixels:
        return []
    flags = []
    for threat in result.threats:
        # How well images transfer says nothing about gradients of the model that they were not made on.
        of_threat = [spec for spec in specs if spec.norm and spec.source is None and spec.threat == threat]
        for attacker in dict.fromkeys(spec.attacker for spec in of_threat):
            attacks = {spec.name: spec for spec in of_threat if spec.attacker == attacker}
            flags += _weak_attack_flag(result, attacks) + _black_box_flag(result, attacks)
        flags += _attacker_flags(result, of_threat)
    return flags + _transfer_flags(result, specs) + _draws_flag(result)


def _weak_attack_flag(result: SetResult, attacks: Mapping[str, AttackSpec]) -> list[Flag]:
    """A flag if cross-entropy attacks leave much that attacks on the margin find."""
    simple = [name for name, spec in attacks.items() if _loss(spec) == "ce"]
    strong = [name for name, spec in attacks.items() if _loss(spec) != "ce" and spec.attack != "square"]
    if not simple or not strong:
        return []

    gap = result.attacks[simple[-1]] - min(result.attacks[name] for name in strong)
    if not _is_beyond_doubt(gap, result.num_samples, WEAK_ATTACK_GAP):
        return []
    message = f"{simple[-1]} leaves {gap:.1%} of the images standing that attacks on the margin fool"
    return [_flag("weak attack", result.name, message)]


def _black_box_flag(result: SetResult, attacks: Mapping[str, AttackSpec]) -> list[Flag]:
    """A flag if an attack without gradients finds what those with gradients did not."""
    white = [result.attacks[name] for name, spec in attacks.items() if spec.attack != "square"]
    black = [result.attacks[name] for name, spec in attacks.items() if spec.attack == "square"]
    if not white or not black:
        return []

    gap = min(white) - min(black)
    if not _is_beyond_doubt(gap, result.num_samples, BLACK_BOX_GAP):
        return []
    message = f"Square without gradients fools {gap:.1%} of the images that the attacks with them did not"
    return [_flag("black box", result.name, message)]


def _attacker_flags(result: SetResult, specs: Sequence[AttackSpec]) -> list[Flag]:
    """Flags of a threat to a defended model if who knows less of the defence fools more, or attacks help."""
    columns: dict[str, list[list[int]]] = {}
    for spec in specs:
        if spec.attacker is not None:
            columns.setdefault(spec.attacker, []).append(result.verdicts[spec.name])
    if not columns:
        return []
    left = {attacker: worst_case(*of_attacker) for attacker, of_attacker in columns.items()}
    adaptive = [left[attacker] for attacker in ("through", "straight_through") if attacker in left]

    name, threat, flags = result.name, specs[0].threat, []
    if "unaware" in left and adaptive and (gap := _gap(left["unaware"], worst_case(*adaptive))):
        message = f"the bare model fool {gap:.1%} more of the images than those that know the defence, which are weak"
        flags.append(_flag("unaware attack", name, f"attacks of {threat} on {message}"))
    if len(adaptive) == 2 and (gap := _gap(left["straight_through"], left["through"])):
        message = f"past the defence's gradient fool {gap:.1%} more of the images than through it: it masks gradients"
        flags.append(_flag("masked gradients", name, f"attacks of {threat} {message}"))
    if gap := _gap(result.verdicts["clean"], worst_case(*left.values())):
        message = f"{gap:.1%} more of the images are right under {threat} than clean: the attacks help"
        flags.append(_flag("above clean", name, message))
    return flags


def _transfer_flags(result: SetResult, specs: Sequence[AttackSpec]) -> list[Flag]:
    """Flags of images from other models that fool more than attacks of the same ball on the model itself."""
    flags = []
    for threat in result.threats:
        transferred = [spec for spec in specs if spec.norm and spec.source is not None and spec.threat == threat]
        white = [spec for spec in specs if transferred and spec.threat == transferred[0].change]
        if not white:
            continue
        by_source, by_white = (worst_case(*(result.verdicts[spec.name] for spec in of)) for of in (transferred, white))
        if gap := _gap(by_source, by_white):
            message = f"fool {gap:.1%} more of the images than attacks of {white[0].threat} on it, which are weak"
            flags.append(_flag("transfer", result.name, f"attacks of {threat} {message}"))
    return flags


def _gap(lower: Sequence[int], upper: Sequence[int]) -> float:
    """How much more often the second is right on the same images; 0 if that is not beyond doubt."""
    pair = paired_difference(lower, upper)
    return pair.difference if pair.interval[0] > DEFENDED_GAP else 0.0


def _draws_flag(result: SetResult) -> list[Flag]:
    """A flag if a random defence would be judged otherwise by half as many draws."""
    if result.draws is None:
        return []
    robust, half = result.robust_accuracy, result.draws["robust"]["first_half"]
    low, high = result.robust_interval
    if low <= half <= high:
        return []
    message = f"{robust:.1%} of the images are robust by all draws and {half:.1%} by the first half of them: draw more"
    return [_flag("few draws", result.name, message)]


def _loss(spec: AttackSpec) -> str:
    return spec.options.get("loss", "ce" if spec.attack == "apgd" else "margin")


def _is_beyond_doubt(gap: float, count: int, allowed: float) -> bool:
    """Tells whether a share of so many images is above what is allowed, by its 95 % interval."""
    return wilson_interval(max(gap, 0.0), count)[0] > allowed


def _flag(kind: str, name: str, message: str) -> Flag:
    return {"flag": kind, "set": name, "message": message}
