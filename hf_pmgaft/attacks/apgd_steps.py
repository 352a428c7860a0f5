"""The steps of Auto-PGD, which adapt their own length, each walk by its own clock.

On the same start and by the same gradients they go to the points of pyautoattack, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..noise import normal_noise, uniform_noise
from .pyautoattack_runs import library_module
from .walk import State


@dataclass(frozen=True)
class DenseSteps:
    """Steps with momentum in L-inf and L2 (Croce and Hein, ICML 2020, arXiv 2003.01690, algorithm 1).

    At checkpoints, walks whose loss rose too seldom go back to their best point, and halve their steps.

    Args:
        eps (`float`), norm (`str`): The ball; `"linf"` or `"l2"`.
        num_steps (`int`): Steps of a walk.
        first_step (`float`): Length of the first one, in radii. Authors: 2; RobustVLM: 1.

    Example:
        >>> steps = DenseSteps(eps=0.1, norm="linf", num_steps=2)
        >>> state = steps.begin(torch.full((1, 1, 2, 2), 0.5), seeds=torch.tensor([7]), numbers=torch.tensor([0]))
        >>> is_last = steps.advance(state, loss=torch.zeros(1), gradient=torch.ones(1, 1, 2, 2))
        >>> is_last.item(), round(state["points"].amin().item(), 4)
        (False, 0.6)
    """

    eps: float
    norm: str
    num_steps: int
    first_step: float = 2.0

    def begin(self, images: torch.Tensor, seeds: torch.Tensor, numbers: torch.Tensor) -> State:
        """Walks at random points on the surface of the ball, which follow from seed `[S]` and number `[S]`."""
        if self.norm == "linf":
            noise = 2 * uniform_noise(seeds, images.shape[1:], _stream(numbers)) - 1
        else:
            noise = normal_noise(seeds, images.shape[1:], _stream(numbers))
        return self.begin_at(images, (images + self.eps * self._normalize(noise)).clamp(0, 1))

    def begin_at(self, images: torch.Tensor, points: torch.Tensor) -> State:
        """Walks at given points of the ball."""
        count = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        window = max(int(0.22 * self.num_steps), 1)
        return {
            **_begin_bests(points),
            "images": images,
            "points": points,
            "previous_points": points.clone(),
            "step_sizes": points.new_full((len(points),), self.first_step * self.eps),
            "steps": count,
            "windows": count + window,
            "steps_in_window": count.clone(),
            "rises_in_window": count.clone(),
            "last_losses": points.new_zeros(len(points)),
            "losses_at_checkpoint": points.new_zeros(len(points)),
            "was_halved": torch.ones_like(count, dtype=torch.bool),
        }

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Takes each walk to its next point; tells whose next point is its last one, `[S]`."""
        is_start = state["steps"] == 0
        _keep_bests(state, is_start, loss, gradient)
        is_halved = self._check_progress(state, is_start, loss)

        # Who goes back to the best point leaves by its gradient.
        points = _choose(is_halved, state["best_points"], state["points"])
        gradient = _choose(is_halved, state["best_gradients"], gradient)
        momentum = points - state["previous_points"]
        share = _per_image(torch.where(is_start, 1.0, 0.75).to(points.dtype))

        target = self._project(state["images"], points + _per_image(state["step_sizes"]) * self._direction(gradient))
        target = points + (target - points) * share + momentum * (1 - share)

        state["previous_points"] = points
        state["points"] = self._project(state["images"], target)
        state["steps"] = state["steps"] + 1
        return state["steps"] == self.num_steps

    def _check_progress(self, state: State, is_start: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """Counts rises of the loss, and at checkpoints halves the steps of who makes no progress."""
        steps = state["steps_in_window"] + ~is_start
        noted = loss.to(state["last_losses"].dtype)  # losses of float64 are noted in float32
        rises = state["rises_in_window"] + (~is_start & (noted > state["last_losses"]))
        best_losses = state["best_losses"]
        losses_at_checkpoint = torch.where(is_start, loss, state["losses_at_checkpoint"])

        windows = state["windows"]
        is_checkpoint = steps == windows
        rises_seldom = rises <= windows * 0.75
        stands_still = ~state["was_halved"] & (losses_at_checkpoint >= best_losses)
        is_halved = is_checkpoint & (rises_seldom | stands_still)

        shorter = (windows - max(int(0.03 * self.num_steps), 1)).clamp_min(max(int(0.06 * self.num_steps), 1))
        state["windows"] = torch.where(is_checkpoint, shorter, windows)
        state["steps_in_window"] = torch.where(is_checkpoint, 0, steps)
        state["rises_in_window"] = torch.where(is_checkpoint, 0, rises)
        state["last_losses"] = torch.where(is_start, 0.0, noted)  # the first step's loss is compared with 0
        state["losses_at_checkpoint"] = torch.where(is_checkpoint, best_losses, losses_at_checkpoint)
        state["was_halved"] = torch.where(is_checkpoint, is_halved, state["was_halved"])
        state["step_sizes"] = torch.where(is_halved, state["step_sizes"] / 2, state["step_sizes"])
        return is_halved

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.sign() if self.norm == "linf" else self._normalize(gradient)

    def _normalize(self, x: torch.Tensor) -> torch.Tensor:
        length = x.abs().flatten(1).amax(1) if self.norm == "linf" else _l2_norm(x)
        return x / (_per_image(length) + 1e-12)

    def _project(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        if self.norm == "linf":
            return points.maximum(images - self.eps).minimum(images + self.eps).clamp(0, 1)
        delta = points - images
        return (images + self._normalize(delta) * _per_image(_l2_norm(delta)).clamp_max(self.eps)).clamp(0, 1)


@dataclass(frozen=True)
class SparseSteps:
    """Steps in L1 along the largest entries of the gradient (Croce and Hein, ICML 2021, arXiv 2103.01208, section 4).

    The walk has three parts, in balls of three times the radius, twice the radius, and the radius. Each begins at the
    best point of the part before. How many pixels a step changes follows from how many the best point does.

    Args:
        eps (`float`): Radius of the ball.
        num_steps (`int`): Steps of all three parts; at least 3.

    Example:
        >>> SparseSteps(eps=2.0, num_steps=10).lengths
        (3, 3, 4)
    """

    eps: float
    num_steps: int

    def __post_init__(self) -> None:
        library_module("autopgd_base")
        if self.num_steps < 3:
            raise ValueError(
                f"You passed num_steps={self.num_steps}, but in L1 APGD walks in three parts. Pass 3 or more."
            )

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Steps of each part; of 4 steps none is left for the last one, whose start is then the last point."""
        third = -(-3 * self.num_steps // 10)
        return third, third, self.num_steps - 2 * third

    @property
    def radii(self) -> tuple[float, float, float]:
        """The radius of each part."""
        return 3.0 * self.eps, 2.0 * self.eps, 1.0 * self.eps

    def begin(self, images: torch.Tensor, seeds: torch.Tensor, numbers: torch.Tensor) -> State:
        """Walks at random points of the largest ball, which follow from seed `[S]` and number `[S]`."""
        points = images + normal_noise(seeds, images.shape[1:], _stream(numbers))
        for _ in range(2):  # as the library does
            points = points + self._way_back(images, points - images, self.radii[0])
        points = points.clamp(0, 1)

        count = torch.zeros_like(numbers)
        return {
            **_begin_bests(points),
            "images": images,
            "points": points,
            "parts": count,
            "steps": count.clone(),
            "steps_in_window": count.clone(),
            "supports": count.clone(),
            "step_sizes": points.new_zeros(len(points)),
        }

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Takes each walk to its next point; tells whose next point is its last one, `[S]`."""
        images, parts, steps = state["images"], state["parts"], state["steps"]
        is_start = steps == 0
        _keep_bests(state, is_start, loss, gradient)
        is_back = self._check_support(state, is_start)

        # Who goes back to the best point leaves by its gradient.
        points = _choose(is_back, state["best_points"], state["points"])
        gradient = _choose(is_back, state["best_gradients"], gradient)
        direction = self._sparse_sign(gradient, state["supports"])
        count = direction.abs().flatten(1).sum(1)
        points = points + _per_image(state["step_sizes"]) * direction / (_per_image(count) + 1e-10)

        # The next part begins at the best point of this one.
        is_over = steps == self._of_parts(self.lengths, parts)
        parts = parts + is_over
        delta = _choose(is_over, state["best_points"], points) - images
        points = _choose(is_over, state["best_points"], images + delta)
        points = points + self._way_back(images, delta, self._of_parts(self.radii, parts, delta.dtype))

        state["points"] = _choose(is_over, points.clamp(0, 1), points)
        state["parts"] = parts
        state["steps"] = torch.where(is_over, 0, steps + 1)
        state["steps_in_window"] = torch.where(is_over, 0, state["steps_in_window"])
        return (parts == 2) & (state["steps"] == self.lengths[2])

    def _check_support(self, state: State, is_start: torch.Tensor) -> torch.Tensor:
        """Counts changed pixels at checkpoints: where they became fewer, steps are long again, elsewhere shorter."""
        parts, step_sizes, supports = state["parts"], state["step_sizes"], state["supports"]
        radii = self._of_parts(self.radii, parts, step_sizes.dtype)
        shortest = self._of_parts([radius / 10 for radius in self.radii], parts, step_sizes.dtype)
        windows = self._of_parts([max(int(0.04 * length), 1) for length in self.lengths], parts)

        steps = state["steps_in_window"] + ~is_start
        is_checkpoint = steps == windows
        changed = ((state["best_points"] - state["images"]) != 0).flatten(1).sum(1)
        is_back = is_checkpoint & (changed / supports < 0.95)

        shorter = (step_sizes / 1.5).maximum(shortest).minimum(radii)
        step_sizes = torch.where(is_checkpoint, shorter, step_sizes)
        state["step_sizes"] = torch.where(is_start | is_back, radii, step_sizes)
        state["supports"] = torch.where(is_start | is_checkpoint, changed, supports)
        state["steps_in_window"] = torch.where(is_checkpoint, 0, steps)
        return is_back

    def _way_back(self, images: torch.Tensor, delta: torch.Tensor, radii: torch.Tensor | float) -> torch.Tensor:
        """What leads from `images + delta` to the nearest point of the ball and of [0,1]."""
        return library_module("autopgd_base").L1_projection(images, delta, radii)

    def _of_parts(
        self, values: Sequence[float], parts: torch.Tensor, dtype: torch.dtype = torch.int64
    ) -> torch.Tensor:
        """What each walk has of values that there is one of for each part."""
        return torch.tensor(values, dtype=dtype, device=parts.device)[parts]

    def _sparse_sign(self, gradient: torch.Tensor, supports: torch.Tensor) -> torch.Tensor:
        """The signs of the largest entries, two for three pixels that the best point changes, and 0 elsewhere."""
        size = gradient[0].numel()
        sizes = gradient.abs()
        smallest = ((1.0 - supports / size / 1.5) * size).clamp(0, size - 1).long()
        threshold = sizes.flatten(1).sort(dim=1)[0].gather(1, smallest.unsqueeze(1)).squeeze(1)
        return (gradient * (sizes >= _per_image(threshold))).sign()


def _begin_bests(points: torch.Tensor) -> State:
    """Room for the point of the highest loss of each walk."""
    return {
        "best_points": points.clone(),
        "best_gradients": torch.zeros_like(points),
        "best_losses": points.new_zeros(len(points)),
    }


def _keep_bests(state: State, is_start: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> None:
    """Keeps the points that are starts, or have a higher loss than all before."""
    is_best = is_start | (loss > state["best_losses"])
    state["best_points"] = _choose(is_best, state["points"], state["best_points"])
    state["best_gradients"] = _choose(is_best, gradient, state["best_gradients"])
    state["best_losses"] = torch.where(is_best, loss, state["best_losses"])


def _stream(numbers: torch.Tensor) -> torch.Tensor:
    """The stream of noise of walks by their numbers, as the library's runs have it."""
    return (numbers << 20) + 1


def _choose(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.where(_per_image(condition), one, other)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def _l2_norm(x: torch.Tensor) -> torch.Tensor:
    return (x**2).flatten(1).sum(1).sqrt()
