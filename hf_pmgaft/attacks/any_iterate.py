"""The any-iterate verdict: an image is fooled by the first point inside its ball that is misclassified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..modes import at_least_float32, frozen
from .ball import inside, parse_radius
from .inputs import check_classes, check_images, check_labels, check_logits, check_not_nan
from .losses import correct


class AllFooled(Exception):
    """Raised when every image is fooled, so that an attack has nothing more to do.

    Example:
        >>> from hf_pmgaft.attacks import AnyIterate
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([1])
        >>> watch = AnyIterate(lambda images: images.flatten(1)[:, :2], images, labels, eps=0.1, norm="linf")
        >>> try:
        ...     for _ in range(100):
        ...         _ = watch(images)
        ... except AllFooled:
        ...     print("nothing more to do")
        nothing more to do
    """


class AnyIterate:
    """Wraps a classifier, and keeps per image the first misclassified point inside its ball.

    From then on the image costs nothing: its logits are those of the kept point, without gradient. What happens to the
    other images is the same, since attacks treat images apart.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`, or `[B,P]` as in [`correct`].
        eps (`float`), norm (`str`): The balls; points outside them fool nobody.
        tries (`torch.Tensor`, *optional*): `[B]`: where rows are tries at the same images, the number of the image of
            each. Once a try has fooled its image, later rows of that image cost nothing either.

    Attributes:
        adversarial (`torch.Tensor`): `[B,C,H,W]`, the kept points, and the images where there is none.
        fooled (`torch.Tensor`): `[B]`, bool.

    Example:
        >>> images, labels = torch.full((2, 3, 8, 8), 0.5), torch.tensor([0, 1])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> watch = AnyIterate(classifier, images, labels, eps=0.1, norm="linf")
        >>> _ = watch(images)
        >>> watch.fooled.tolist()
        [False, True]
    """

    def __init__(
        self,
        classifier: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        eps: float,
        norm: str,
        tries: torch.Tensor | None = None,
    ):
        self.classifier = classifier
        self.images = images
        self.labels = labels
        self.eps = eps
        self.norm = norm
        self.adversarial = images.detach().clone()
        self.fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self._tries = tries
        self._walking = torch.arange(len(images), device=images.device)
        self._never_wrong = self._walking
        self._logits: torch.Tensor | None = None

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Logits of one point per image, or per image that is not fooled yet.

        Raises:
            AllFooled: once every image is fooled.
        """
        rows = self.rows(len(points))
        if len(points) <= len(self._walking):
            logits = self._logits_of(points)
            self._keep(rows, points.detach(), logits.detach())
        else:
            walking = self._walking
            walking_points = points[walking]
            walking_logits = self._logits_of(walking_points)
            self._keep(walking, walking_points.detach(), walking_logits.detach())
            logits = self._logits.index_copy(0, walking, walking_logits)
        if not len(self._walking):
            raise AllFooled
        return logits

    def rows(self, count: int) -> torch.Tensor:
        """Which images a batch of `count` points belongs to: some attacks go on without those they fooled."""
        for rows in (self._walking, self._never_wrong):
            if count == len(rows):
                return rows
        if count != len(self.images):
            raise RuntimeError(f"An attack passed {count} points for {len(self._walking)} images not fooled yet.")
        return torch.arange(count, device=self.images.device)

    def _logits_of(self, points: torch.Tensor) -> torch.Tensor:
        return at_least_float32(check_logits(self.classifier(points), points))

    def _keep(self, rows: torch.Tensor, points: torch.Tensor, logits: torch.Tensor) -> None:
        if self._logits is None:
            check_classes(self.labels, logits.shape[1])
            check_not_nan(logits)
            self._logits = logits.new_zeros(len(self.images), logits.shape[1])
        wrong = (~correct(logits, self.labels[rows])).nonzero().squeeze(1)
        if not len(wrong):
            return
        if not torch.isfinite(logits[wrong]).all():  # NaN is never correct, so that it comes by here
            raise FloatingPointError("The logits are NaN or infinite, so that no verdict can be given.")
        self._never_wrong = self._never_wrong[~torch.isin(self._never_wrong, rows[wrong])]

        # Points outside their balls fool nobody.
        wrong = wrong[inside(self.images[rows[wrong]], points[wrong], self.eps, self.norm)]
        fooled = rows[wrong]
        self._logits[rows] = logits
        self.adversarial[fooled] = points[wrong].clamp(0, 1).to(self.adversarial.dtype)
        self.fooled[fooled] = True
        self._walking = self._still_matter().nonzero().squeeze(1)

    def _still_matter(self) -> torch.Tensor:
        """Which rows may still be the earliest try that fools its image."""
        if self._tries is None:
            return ~self.fooled
        rows = torch.arange(len(self.fooled), device=self.fooled.device)
        fooled_by = rows.where(self.fooled, len(rows))
        earliest = torch.full_like(rows, len(rows)).scatter_reduce(0, self._tries, fooled_by, "amin")
        return rows < earliest[self._tries]


def first_fooled(
    attack: Callable[..., torch.Tensor],
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str,
    **options: Any,
) -> torch.Tensor:
    """Runs an attack, and returns per image the first misclassified point on its way, at which its walk ends.

    An image that meets none comes back as the attack returned it. The attack is one that is called by `eps` and
    `norm` and finds its way in the logits; those of AutoAttack and the patch keep the first point by themselves.

    Example:
        >>> from hf_pmgaft.attacks import pgd
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> adversarial = first_fooled(pgd, classifier, images, labels, eps="4/255", norm="linf")
        >>> correct(classifier(adversarial), labels).tolist()
        [False]
    """
    images = check_images(images)
    labels = check_labels(labels, images, several=True)
    watch = AnyIterate(classifier, images, labels, parse_radius(eps, norm), norm)
    with frozen(classifier):
        try:
            last = attack(watch, images, labels, eps=eps, norm=norm, **options)
            with torch.no_grad():
                watch(last)
        except AllFooled:
            last = images

    return torch.where(watch.fooled.view(-1, 1, 1, 1), watch.adversarial, last)
