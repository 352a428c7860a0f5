"""Full batches: walks of many images side by side, where one that ends is replaced at once by the next.

Servers of language models call it continuous batching (Orca, Yu et al., OSDI 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from ..modes import at_least_float32, frozen
from .ball import inside
from .inputs import check_classes, check_logits, check_not_nan
from .losses import correct, gradient_of
from .usage import Usage
from .walk import Ended, Lot, State, Walk

Classifier = Callable[[torch.Tensor], torch.Tensor]


@dataclass(eq=False)
class _Image:
    """An image on its way, and what became of its walks.

    Args:
        ranking (`torch.Tensor`, *optional*): Classes from the most to the least likely.
        started (`int`): How many of its walks have begun.
        running (`set[int]`): Walks that are not decided.
        seated (`int`): Walks that have a place in the batch.
        fooled_by (`int`, *optional*): The walk that fooled it.
        point (`torch.Tensor`, *optional*): Where a walk ended.
    """

    row: int
    image: torch.Tensor
    label: torch.Tensor
    seed: torch.Tensor
    ranking: torch.Tensor | None = None
    started: int = 0
    running: set[int] = field(default_factory=set)
    seated: int = 0
    fooled_by: int | None = None
    point: torch.Tensor | None = None

    def start(self) -> _Place:
        """Begins its next walk."""
        number = self.started
        self.started += 1
        self.seated += 1
        self.running.add(number)
        return self, number

    def end(self, number: int, point: torch.Tensor, is_fooled: bool) -> None:
        """One of its walks is decided."""
        self.running.discard(number)
        if is_fooled and (self.fooled_by is None or number < self.fooled_by):
            self.fooled_by = number
            self.point = point
        elif self.fooled_by is None:
            self.point = point


_Place = tuple[_Image, int]  # a walk: of which image, and which one


class FullBatches:
    """Runs the walks of images that come in lots, and gives images as they are decided, in whatever order.

    An image is fooled by the first misclassified point inside its ball on any of its walks. These run one after the
    other, or side by side where places would be empty. What becomes of an image depends on no other image.

    Args:
        walk (`Walk`): The attack.
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        eps (`float`), norm (`str`): The balls; points outside them fool nobody.
        size (`int`): Places of a batch.
        images_at_once (`int`, *optional*): Images that are on their way at most, if fewer than places allow.
        side_by_side (`bool`): Whether walks of one image may fill empty places.
        in_order (`bool`): Whether the point that is kept is that of the earliest walk that fools the image, for which
            those before it are waited for.
        looks_at_images (`bool`): Whether images may be misclassified before any attack; they are fooled as they are.
        usage (`Usage`, *optional*): Where passes are counted.

    Example:
        >>> from hf_pmgaft.attacks.pgd import pgd_walk
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> images, labels = torch.full((3, 3, 8, 8), 0.5), torch.tensor([0, 0, 1])
        >>> lot = Lot([10, 11, 12], images, labels, torch.arange(3))
        >>> batches = FullBatches(pgd_walk(eps="4/255"), classifier, eps=4 / 255, norm="linf", size=2)
        >>> ended = Ended.join(list(batches.run([lot])))
        >>> sorted(ended.rows), ended.fooled.tolist()
        ([10, 11, 12], [True, True, True])
    """

    def __init__(
        self,
        walk: Walk,
        classifier: Classifier,
        *,
        eps: float,
        norm: str,
        size: int,
        images_at_once: int | None = None,
        side_by_side: bool = True,
        in_order: bool = False,
        looks_at_images: bool = False,
        usage: Usage | None = None,
    ):
        self.walk = walk
        self.classifier = classifier
        self.eps = eps
        self.norm = norm
        self.size = size
        self.images_at_once = images_at_once
        self.side_by_side = side_by_side
        self.in_order = in_order
        self.looks_at_images = looks_at_images or walk.ranks_classes
        self.usage = Usage(size) if usage is None else usage

        self._state: State | None = None
        self._places: list[_Place] = []  # the walks in the rows of the state
        self._left: list[int] = []  # rows whose walks have ended
        self._last: list[tuple[_Place, torch.Tensor]] = []  # walks at their last points, which are not looked at yet
        self._arrived: list[_Image] = []  # images that wait for a place
        self._live: dict[_Image, None] = {}  # images on their way, in the order in which they came
        self._ended: list[_Image] = []
        self._more_come = True  # as far as is known
        self._half_full: list[int] = []  # images of first looks that more images might have filled up
        self._is_checked = False

    @torch.no_grad()
    def run(self, lots: Iterable[Lot]) -> Iterator[Ended]:
        """Takes lots as places become free.

        Raises:
            FloatingPointError: if logits are NaN or infinite.
            ValueError: for labels outside the classes, and logits without a gradient.
        """
        lots = iter(lots)
        with frozen(self.classifier):
            while True:
                self._fill(lots)
                if self._places and len(self._last) < self.size:
                    self._step()
                elif self._last:
                    self._look_at_last_points()
                elif not self._ended:
                    return
                if self._ended:
                    yield self._take_ended()

    # ---- Who enters ----

    def _fill(self, lots: Iterator[Lot]) -> None:
        """Gives all free places away."""
        ended = set(self._left)
        self._left = [row for row, place in enumerate(self._places) if row in ended or not self._matters(place)]
        for row in self._left:
            self._places[row][0].seated -= 1
        free = self.size - len(self._places) + len(self._left)
        if not free:
            return

        # An image goes on with its next walk, before others come.
        resting = [image for image in self._live if not image.seated and self._may_start(image)]
        entering = [image.start() for image in resting[:free]]
        while len(entering) < free and self._has_room() and (image := self._next_image(lots)):
            entering.append(image.start())

        # Then walks of one image run side by side.
        while len(entering) < free and self.side_by_side:
            waiting = [image for image in self._live if self._may_start(image)]
            if not waiting:
                break
            waiting.sort(key=lambda image: image.started)
            entering += [image.start() for image in waiting[: free - len(entering)]]
        self._seat(entering)

    def _has_room(self) -> bool:
        return self.images_at_once is None or len(self._live) < self.images_at_once

    def _may_start(self, image: _Image) -> bool:
        """Whether an image has a walk that can begin."""
        can_wait = self.side_by_side or not image.running
        return can_wait and image.fooled_by is None and image.started < self.walk.num_walks

    def _matters(self, place: _Place) -> bool:
        """Whether a walk still matters, although another one may have fooled its image."""
        image, number = place
        return image.fooled_by is None or (self.in_order and number < image.fooled_by)

    def _next_image(self, lots: Iterator[Lot]) -> _Image | None:
        """The next image that comes from outside."""
        while not self._arrived:
            lot = next(lots, None)
            self._more_come = lot is not None
            for count in self._half_full:
                self.usage.count(count, waiting=self._more_come)
            self._half_full = []
            if lot is None:
                return None
            self._arrive(lot)

        image = self._arrived.pop(0)
        image.image = image.image.clone()  # the others of its lot shall not stay in memory with it
        self._live[image] = None
        return image

    def _arrive(self, lot: Lot) -> None:
        parts = zip(lot.rows, lot.images.float(), lot.labels, lot.seeds, strict=True)
        images = [_Image(*part) for part in parts]
        if self.looks_at_images:
            for start in range(0, len(images), self.size):
                self._look_at(images[start : start + self.size])
        self._arrived += [image for image in images if image.fooled_by is None]

    def _look_at(self, images: list[_Image]) -> None:
        """Ranks the classes of images before any attack; those that are misclassified end here."""
        labels = torch.stack([image.label for image in images])
        points = torch.stack([image.image for image in images])
        if len(images) == self.size:
            self.usage.count(len(images), waiting=True)
        else:
            self._half_full.append(len(images))
        logits = self._logits(points, labels)
        fooled = set(self._fooled(points, labels, points, logits))
        ranking = logits.sort(dim=1)[1].flip(1)[:, : self.walk.num_walks + 1]
        for index, image in enumerate(images):
            image.ranking = ranking[index]
            if index in fooled:
                image.end(0, image.image, is_fooled=True)
                self._ended.append(image)

    def _seat(self, entering: list[_Place]) -> None:
        """Puts walks in the rows of those that have left. Rows that stay empty are closed."""
        new = self._begin(entering) if entering else {}
        if self._state is None:
            self._state, self._places = new or None, entering
            return

        reused, empty = self._left[: len(entering)], set(self._left[len(entering) :])
        kept = [row for row in range(len(self._places)) if row not in empty]
        self._left = []
        for row, place in zip(reused, entering, strict=False):
            self._places[row] = place
        self._places = [self._places[row] for row in kept] + entering[len(reused) :]
        for key, rows in self._state.items():
            if reused:
                rows[reused] = new[key][: len(reused)]
            if empty:
                rows = rows[kept]
            if len(entering) > len(reused):
                rows = torch.cat([rows, new[key][len(reused) :]])
            self._state[key] = rows
        if not self._places:
            self._state = None

    def _begin(self, entering: list[_Place]) -> State:
        images = [image for image, _ in entering]
        numbers = torch.tensor([number for _, number in entering], device=images[0].image.device)
        return self.walk.begin(
            torch.stack([image.image for image in images]),
            torch.stack([image.label for image in images]),
            torch.stack([image.seed for image in images]),
            numbers,
            torch.stack([image.ranking for image in images]) if self.walk.ranks_classes else None,
        )

    # ---- A pass ----

    def _step(self) -> None:
        """One step of all walks that have a place."""
        state = self._state
        self.usage.count(len(self._places), waiting=self._something_waits())
        with torch.enable_grad():
            points = state["points"].detach().requires_grad_()
            logits = self._logits(points, state["labels"])

        fooled = self._fooled(state["images"], state["labels"], points.detach(), logits.detach())
        for row, point in zip(fooled, points.detach()[fooled].clamp(0, 1), strict=True):
            self._decide(self._places[row], point, is_fooled=True)
        self._left = fooled
        if len(fooled) == len(points):
            return

        with torch.enable_grad():
            loss = self.walk.loss(state, logits)
            total = loss.sum()
        is_last = self.walk.advance(state, loss.detach(), gradient_of(total, points))

        # A walk at its last point needs no more gradients, and waits until there is a batch of such points.
        is_last[fooled] = False
        last = is_last.nonzero().squeeze(1).tolist()
        for row, point in zip(last, state["points"][last], strict=True):
            self._last.append((self._places[row], point))
        self._left = fooled + last

    def _look_at_last_points(self) -> None:
        """Looks at the last points of walks, as many as a batch holds."""
        looked_at, self._last = self._last[: self.size], self._last[self.size :]
        looked_at = [(place, point) for place, point in looked_at if self._matters(place)]
        if not looked_at:
            return
        images = [image for (image, _), _ in looked_at]
        points = torch.stack([point for _, point in looked_at])
        labels = torch.stack([image.label for image in images])
        self.usage.count(len(points), waiting=self._something_waits())
        logits = self._logits(points, labels)
        fooled = set(self._fooled(torch.stack([image.image for image in images]), labels, points, logits))
        for index, (place, point) in enumerate(looked_at):
            self._decide(place, point.clamp(0, 1) if index in fooled else point, index in fooled)

    def _logits(self, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = at_least_float32(check_logits(self.classifier(points), points))
        if not self._is_checked:  # once, since these checks wait for the device
            check_classes(labels, logits.shape[1])
            check_not_nan(logits)
            self._is_checked = True
        return logits

    def _something_waits(self) -> bool:
        return self._more_come or bool(self._arrived) or any(map(self._may_start, self._live))

    def _fooled(
        self, images: torch.Tensor, labels: torch.Tensor, points: torch.Tensor, logits: torch.Tensor
    ) -> list[int]:
        """Which points are misclassified and inside their balls."""
        wrong = (~correct(logits, labels)).nonzero().squeeze(1)
        if not len(wrong):
            return []
        if not torch.isfinite(logits[wrong]).all():  # NaN is never correct, so that it comes by here
            raise FloatingPointError("The logits are NaN or infinite, so that no verdict can be given.")
        return wrong[inside(images[wrong], points[wrong], self.eps, self.norm)].tolist()

    # ---- Who leaves ----

    def _decide(self, place: _Place, point: torch.Tensor, is_fooled: bool) -> None:
        """A walk has ended at a point; its image too, if that was what it waited for."""
        image, number = place
        image.end(number, point, is_fooled)
        if image in self._live and self._is_decided(image):
            del self._live[image]
            self._ended.append(image)

    def _is_decided(self, image: _Image) -> bool:
        if any(self._matters((image, number)) for number in image.running):
            return False
        return image.fooled_by is not None or image.started == self.walk.num_walks

    def _take_ended(self) -> Ended:
        images, self._ended = self._ended, []
        return Ended(
            [image.row for image in images],
            torch.stack([image.image for image in images]),
            torch.stack([image.label for image in images]),
            torch.stack([image.point for image in images]),
            torch.tensor([image.fooled_by is not None for image in images], device=images[0].image.device),
        )


def walk_all(
    walk: Walk,
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    eps: float,
    norm: str,
) -> torch.Tensor:
    """Attacks one batch, walk after walk; images that are misclassified come back as they are.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`, float32: the first misclassified point of the earliest walk that meets one; the
        image itself where there is none.

    Example:
        >>> from hf_pmgaft.attacks.pgd import pgd_walk
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> walk = pgd_walk(eps="4/255", num_steps=5)
        >>> adversarial = walk_all(walk, classifier, images, labels, torch.tensor([0]), eps=4 / 255, norm="linf")
        >>> correct(classifier(adversarial), labels).tolist()
        [False]
    """
    batches = FullBatches(
        walk,
        classifier,
        eps=eps,
        norm=norm,
        size=len(images),
        side_by_side=False,
        in_order=True,
        looks_at_images=True,
    )
    adversarial = images.detach().float().clone()
    for ended in batches.run([Lot(list(range(len(images))), adversarial.clone(), labels, seeds)]):
        rows = torch.tensor(ended.rows, device=images.device)[ended.fooled]
        adversarial[rows] = ended.points[ended.fooled]
    return adversarial
