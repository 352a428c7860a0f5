"""Projected gradient descent in L-inf and L2 (Madry et al., ICLR 2018, arXiv 1706.06083); FGSM is its first step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .any_iterate import AllFooled, AnyIterate, correct
from .noise import normal_noise, uniform_noise

Loss = Callable[[torch.Tensor], torch.Tensor]
NORMS = ("l2", "linf")


def parse_radius(value: str | float, norm: str = "linf") -> float:
    """A radius in the scale of images in [0,1], from a number or a fraction such as `"4/255"`.

    Raises:
        ValueError: if it is no number, negative, or in L-inf above 1.
    """
    try:
        numerator, _, denominator = str(value).partition("/")
        radius = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"You passed the radius {value!r}, which is no number. Write it as 4/255 or 0.0157."
        ) from None
    if not 0 <= radius < float("inf"):
        raise ValueError(f"You passed the radius {value}, but a ball has a radius of 0 or more. Pass such as 4/255.")
    if norm == "linf" and radius > 1:
        raise ValueError(
            f"You passed the radius {value}, but pixels go from 0 to 1, so it would allow any image. "
            f"If you meant {value} of 255 grey levels, write {value}/255."
        )
    return radius


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per sample: `[B,K], [B] -> [B]`; of labels `[B,P]`, that of any of them (MIL-NCE, Miech et al.,
    CVPR 2020, arXiv 1912.06430, equation 1)."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels, False)
    return logits.logsumexp(1) - logits.masked_fill(others, -torch.inf).logsumexp(1)


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Largest wrong logit minus the label's (Carlini and Wagner, 2017, arXiv 1608.04644): above 0 is misclassified.

    Of labels `[B,P]`, minus the largest of theirs.
    """
    labels = labels.view(len(labels), -1)
    return logits.scatter(1, labels, -torch.inf).amax(1) - logits.gather(1, labels).amax(1)


def dlr(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Difference of logits ratio (Croce and Hein, ICML 2020, arXiv 2003.01690, equation 6); at least 3 classes."""
    if logits.shape[1] < 3:
        raise ValueError(
            f"The DLR loss divides by the third largest logit, but there are {logits.shape[1]} classes. Use the "
            "margin loss."
        )
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Targeted DLR (same paper, equation 7) of `targets` against the `labels` predicted at the start; 4 classes."""
    if logits.shape[1] < 4:
        raise ValueError(
            f"The targeted DLR loss needs the fourth largest logit, but there are {logits.shape[1]} classes. Use the "
            "margin loss."
        )
    top = logits.topk(4, dim=1).values
    scale = (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)
    return (_pick(logits, targets) - _pick(logits, labels)) / scale


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ce": cross_entropy,
    "dlr": dlr,
    "margin": margin,
}


@contextlib.contextmanager
def frozen(module: Any) -> Iterator[None]:
    """Eval mode without parameter gradients; every flag is afterwards as it was. Other callables pass untouched."""
    if not isinstance(module, nn.Module):
        yield
        return
    training = [(part, part.training) for part in module.modules()]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for part, mode in training:
            part.training = mode


def pgd(
    classifier: Callable[[torch.Tensor], torch.Tensor] | None,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 10,
    step_size: float | str | None = None,
    random_start: bool = True,
    start_std: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    loss: str = "ce",
    targeted: bool = False,
    any_iterate: bool = False,
    tau: int | None = None,
    loss_fn: Loss | None = None,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Images within `eps` of the given ones that maximise a loss; the last iterate of the strongest restart.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`. A module is run in eval mode.
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        labels (`torch.Tensor`): `[B]`; the classes to reach if `targeted`. Or `[B,P]`: several right ones per image,
            fewer filled up by repetition.
        eps (`float` or `str`): Radius of the ball, in the scale of the images.
        norm (`str`): `"linf"` or `"l2"`.
        num_steps (`int`): Gradient steps.
        step_size (`float` or `str`, *optional*): Length of a step; `2.5 * eps / num_steps` if not given (Madry et
            al.), `eps` for a single step.
        random_start (`bool`): Start uniformly in the ball instead of at the image.
        start_std (`float`, *optional*): Start at normal noise of this standard deviation instead, moved into the ball
            and [0,1] (TRADES, arXiv 1901.08573: 0.001); only with `random_start`.
        restarts (`int`): Runs from independent starts; per image the one with the highest loss is kept.
        momentum (`float`): Of the step: velocity = momentum * velocity + gradient / |gradient|_1 (Dong et al., 2018,
            arXiv 1710.06081).
        loss (`str`): `"ce"`, `"margin"` or `"dlr"`.
        targeted (`bool`): Go towards `labels` instead of away from them.
        any_iterate (`bool`): Return, where there is one, the first misclassified point on the way, at which the walk
            of that image ends.
        tau (`int`, *optional*): Early stop, PGD-K-tau of friendly adversarial training (arXiv 2002.11242, algorithm
            1): an image stays at its iterate once that is misclassified and `tau` of its iterates were before, and
            leaves the batch. Another, weaker attack, and so another recipe, for less time. One run on a named loss,
            with labels; the host waits for the device in every step to learn which images are left.
        loss_fn (`Callable`, *optional*): Images `[B,C,H,W]` -> loss per image `[B]`, in place of `loss`.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64, from which all randomness of an image follows; 0, 1, 2, ...
            if not given.

    Returns:
        `torch.Tensor`: Detached, in [0,1], inside the ball, of the images' dtype. Parameters' gradients and flags,
        training modes and the global random state are as before.

    Raises:
        ValueError: for an unknown norm or loss, a number that leaves nothing to do, or options that exclude each
            other.
    """
    eps, norm = parse_radius(eps, norm), known("norm", norm, NORMS)
    check_images(images, seeds)
    for name, value in (("num_steps", num_steps), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"You passed {name}={value}, which leaves nothing to do. Pass 1 or more.")
    if step_size is None:
        step_size = eps if num_steps == 1 else 2.5 * eps / num_steps
    step_size = parse_radius(step_size, norm)
    start_std = None if start_std is None else parse_radius(start_std, norm)
    if seeds is None:
        seeds = torch.arange(len(images), device=images.device)
    if tau is not None:
        _check_early_stop(tau, targeted, any_iterate, restarts, loss_fn)
    if any_iterate:
        if targeted or loss_fn is not None:
            raise ValueError("You passed any_iterate with a target or loss_fn, but it ends at the first wrong class.")
        options = {"step_size": step_size, "restarts": restarts, "momentum": momentum, "loss": loss, "seeds": seeds}
        options |= {"eps": eps, "norm": norm, "num_steps": num_steps, "random_start": random_start}
        options |= {"start_std": start_std}
        return _first_fooled(classifier, images, labels, **options)
    with frozen(classifier):
        if tau is None:
            loss_fn = loss_fn or make_loss(classifier, images, labels, loss, targeted)
        best, best_loss = images.detach().clone(), None
        for restart in range(restarts if random_start else 1):
            adversarial = images.detach().clone()
            if random_start:
                adversarial = _start(images, eps, norm, seeds, restart, start_std)
            if tau is not None:
                walk = (images, adversarial, eps, norm, num_steps, step_size, momentum)
                return _ascend_early_stopped(tau, classifier, labels, loss, *walk)
            adversarial = _ascend(loss_fn, images, adversarial, eps, norm, num_steps, step_size, momentum)
            if restarts == 1 or not random_start:
                return adversarial
            with torch.no_grad():
                value = _float(loss_fn(adversarial))
            better = torch.ones_like(value, dtype=torch.bool) if best_loss is None else value > best_loss
            best_loss = value if best_loss is None else torch.where(better, value, best_loss)
            best = torch.where(better.view(-1, 1, 1, 1), adversarial, best)
    return best


def fgsm(
    classifier: Callable[[torch.Tensor], torch.Tensor] | None,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    eps: float | str,
    norm: str = "linf",
    random_start: bool = False,
    **options: Any,
) -> torch.Tensor:
    """One step of length `eps` along the gradient (Goodfellow et al., ICLR 2015, arXiv 1412.6572); see [`pgd`]."""
    options.update(num_steps=1, step_size=eps)
    return pgd(classifier, images, labels, eps=eps, norm=norm, random_start=random_start, **options)


def project(images: torch.Tensor, adversarial: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """The point of the ball around `images`, and then of [0,1], next to `adversarial`."""
    delta = adversarial - images
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    else:
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = torch.where(length > eps, delta * (eps / length), delta)
    return (images + delta).clamp(0, 1)


def _first_fooled(classifier, images, labels, *, eps, norm, **options) -> torch.Tensor:
    watch = AnyIterate(classifier, images, labels, eps, norm)
    with frozen(classifier):
        try:
            last = pgd(watch, images, labels, eps=eps, norm=norm, **options)
            with torch.no_grad():
                watch(last)
        except AllFooled:
            last = images
    return torch.where(watch.fooled.view(-1, 1, 1, 1), watch.adversarial, last)


def _ascend(loss_fn, images, adversarial, eps, norm, num_steps, step_size, momentum) -> torch.Tensor:
    images, velocity = images.detach(), 0.0
    # Half precision cannot hold a point of the ball exactly, so the walk is in float32 at least.
    start, walk = _float(images), _float(adversarial)
    for _ in range(num_steps):
        gradient = input_gradient(loss_fn, walk.to(images.dtype))
        if momentum:
            gradient = velocity = _accelerated(velocity, gradient, momentum)
        walk = project(start, walk + step_size * _direction(gradient, norm), eps, norm)
    return round_inside(images, walk).detach()


def _ascend_early_stopped(
    tau, classifier, labels, loss, images, adversarial, eps, norm, num_steps, step_size, momentum
) -> torch.Tensor:
    images = images.detach()
    start, walk = _float(images), _float(adversarial).clone()
    rows, velocity = torch.arange(len(images), device=images.device), torch.zeros_like(walk)
    left = torch.full_like(rows, tau)  # how many more misclassified iterates each image may walk on from
    for _ in range(num_steps):
        with torch.enable_grad():
            point = walk[rows].to(images.dtype).requires_grad_()
            logits = _float(classifier(point))
            fooled = ~correct(logits.detach(), labels[rows])
            go = (~fooled | (left[rows] > 0)).nonzero().squeeze(1)
            if not len(go):
                break
            gradient = torch.autograd.grad(LOSSES[loss](logits, labels[rows]).sum(), point)[0]
        left[rows] -= fooled.long()
        rows, gradient = rows[go], _float(gradient)[go]
        if momentum:
            gradient = velocity[rows] = _accelerated(velocity[rows], gradient, momentum)
        walk[rows] = project(start[rows], walk[rows] + step_size * _direction(gradient, norm), eps, norm)
    return round_inside(images, walk).detach()


def _check_early_stop(tau, targeted: bool, any_iterate: bool, restarts: int, loss_fn: Loss | None) -> None:
    if isinstance(tau, bool) or not isinstance(tau, int) or tau < 0:
        raise ValueError(f"You passed tau={tau!r}. Pass how many misclassified iterates to go on from: 0, 1, 2, ...")
    if any_iterate:
        raise ValueError("You passed tau with any_iterate, where a walk ends at the first wrong class. Pass one.")
    if targeted or loss_fn is not None or restarts > 1:
        raise ValueError(
            "You passed tau with a target, loss_fn or restarts, but the early stop is that of one run away from the "
            "label, which it finds in logits. Leave tau out, or choose an objective that attacks by a named loss."
        )


def input_gradient(loss_fn: Loss, images: torch.Tensor) -> torch.Tensor:
    """The gradient of each image's loss at `images` `[B,C,H,W]`, of their shape, float32 at least."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        return _float(torch.autograd.grad(_float(loss_fn(point)).sum(), point)[0])


def _accelerated(velocity: torch.Tensor | float, gradient: torch.Tensor, momentum: float) -> torch.Tensor:
    size = gradient.abs().flatten(1).sum(1).clamp_min(torch.finfo(gradient.dtype).tiny).view(-1, 1, 1, 1)
    return momentum * velocity + gradient / size


def _direction(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    if norm == "linf":
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(length > 0, gradient / length.where(length > 0, 1.0), 0.0)


def _start(
    images: torch.Tensor, eps: float, norm: str, seeds: torch.Tensor, restart: int, std: float | None
) -> torch.Tensor:
    """A point drawn uniformly from the ball, or normally and moved into the ball; clipped to [0,1]."""
    images, shape = _float(images.detach()), images.shape[1:]
    if std is not None:
        return project(images, images + std * normal_noise(seeds, shape, restart).to(images.dtype), eps, norm)
    if norm == "linf":
        delta = (2 * uniform_noise(seeds, shape, restart) - 1) * eps
    else:
        direction = normal_noise(seeds, shape, restart)
        direction = direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        fraction = uniform_noise(seeds, (1, 1, 1), restart + 500) ** (1 / shape.numel())
        delta = direction * fraction * eps
    return (images + delta.to(images.dtype)).clamp(0, 1)


def round_inside(images: torch.Tensor, walk: torch.Tensor) -> torch.Tensor:
    """`walk` in the images' dtype, each pixel rounded towards the image, so that it stays in the ball."""
    rounded = walk.to(images.dtype)
    if rounded.dtype == walk.dtype:
        return rounded
    outward = (_float(rounded) - _float(images)).abs() > (walk - _float(images)).abs()
    return torch.where(outward, torch.nextafter(rounded, images), rounded)


def make_loss(classifier, images, labels, loss: str, targeted: bool = False) -> Loss:
    """The named loss per image, as a function of the images."""
    known("loss", loss, LOSSES)
    if labels is None or classifier is None:
        raise ValueError("You passed no labels or no classifier, which a named loss needs. Pass them, or `loss_fn`.")
    if not targeted:
        return lambda x: LOSSES[loss](_float(classifier(x)), labels)
    if loss == "dlr":
        with torch.no_grad():
            predicted = classifier(images).argmax(1)
        return lambda x: targeted_dlr(_float(classifier(x)), labels, predicted)
    return lambda x: -LOSSES[loss](_float(classifier(x)), labels)


def check_images(images: torch.Tensor, seeds: torch.Tensor | None) -> None:
    """Raises `ValueError` unless the images are `[B,C,H,W]` of floating point numbers, with a seed each."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"You passed images of shape {tuple(images.shape)} and type {images.dtype}; an attack walks through "
            "[B,C,H,W] of floating point numbers in [0,1]. Convert them."
        )
    if seeds is not None and seeds.shape != images.shape[:1]:
        raise ValueError(
            f"You passed seeds of shape {tuple(seeds.shape)} for {len(images)} images. Pass one per image."
        )


def known(name: str, value: str, choices) -> str:
    """The value, or a `ValueError` that lists the choices."""
    if value not in choices:
        raise ValueError(f"There is no {name} {value!r}. Choose one of {sorted(choices)}.")
    return value


def _pick(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _float(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()
