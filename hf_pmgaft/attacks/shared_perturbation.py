"""One perturbation for all images, carried from batch to batch (AdvCLIP-LoRA, arXiv 2505.15130)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..distributed import mean_over_processes
from ..modes import at_least_float32, frozen
from ..noise import uniform_noise
from ..registry import check_choice, check_count
from .ball import parse_factor, parse_radius, round_inside
from .inputs import check_images, check_seeds
from .losses import Loss, make_loss


class SharedPerturbation:
    """The attack `"shared"`: one `d` is added to every image; each batch moves it on, and an epoch starts it anew.

    Equation: `d <- clip(d + step_size * mean gradient, -eps, eps)`, the raw gradient of the loss and not its sign,
    with `d` and its bounds in the space of normalised pixels where the classifier has one. Authors: `step_size=0.05`,
    one step a batch; what it starts from is not known *(inferred: a random point of the ball, or zero)*.

    It keeps the contract of all attacks but for one thing: what it returns depends on the batches before. Processes
    share one perturbation, by the mean of their gradients; micro-batches of accumulation move it one after the other.

    Example:
        >>> images, labels = torch.full((2, 3, 8, 8), 0.5), torch.tensor([0, 1])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :4]
        >>> attack = SharedPerturbation()
        >>> adversarial = attack(classifier, images, labels, eps="4/255")
        >>> torch.allclose(adversarial[0], adversarial[1])
        True
    """

    def __init__(self) -> None:
        self.delta: torch.Tensor | None = None
        self.epoch: int | None = None

    def begin(self, epoch: int) -> None:
        """Forgets the perturbation if another epoch than its own has begun."""
        if epoch != self.epoch:
            self.delta, self.epoch = None, epoch

    def state(self) -> dict[str, torch.Tensor]:
        """Its state for a checkpoint: nothing before the first batch."""
        return {} if self.delta is None else {"delta": self.delta, "epoch": torch.tensor(self.epoch)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on from what [`SharedPerturbation.state`] returned."""
        self.delta, self.epoch = state["delta"], int(state["epoch"])

    def __call__(
        self,
        classifier: Callable[[torch.Tensor], torch.Tensor] | None,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        *,
        eps: float | str,
        norm: str = "linf",
        num_steps: int = 1,
        step_size: float | str | None = None,
        random_start: bool = True,
        loss: str = "ce",
        loss_fn: Loss | None = None,
        seeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Moves the perturbation by `num_steps` steps on this batch, and adds it; see [`pgd`] for the arguments.

        Args:
            norm (`str`): `"linf"` alone.
            step_size (`float`): What the mean gradient is multiplied by, a plain number; 0.05 if not given.
            random_start (`bool`): Where the perturbation of an epoch starts: anywhere in the ball, the same for all
                processes, or at zero.
        """
        eps = parse_radius(eps, norm)
        step_size = 0.05 if step_size is None else parse_factor(step_size)
        check_choice("norm of a shared perturbation", norm, ("linf",))
        check_count("num_steps", num_steps)
        images = check_images(images).detach()
        check_seeds(seeds, images)
        std = getattr(classifier, "std", torch.ones(1, device=images.device))

        if self.delta is None or self.delta.shape[1:] != images.shape[1:]:
            self.delta = self._start(images, eps, random_start)
        delta = self.delta.to(images.device)

        with frozen(classifier):
            loss_fn = loss_fn or make_loss(classifier, images, labels, loss)
            for _ in range(num_steps):
                with torch.enable_grad():
                    delta = delta.detach().requires_grad_()
                    point = (at_least_float32(images) + std * delta).clamp(0, 1).to(images.dtype)
                    value = loss_fn(point).float().mean()
                    gradient = torch.autograd.grad(value, delta)[0]
                delta = (delta.detach() + step_size * mean_over_processes(gradient)).clamp(-eps, eps)

        self.delta = delta
        return round_inside(images, (at_least_float32(images) + std * delta).clamp(0, 1))

    def _start(self, images: torch.Tensor, eps: float, random_start: bool) -> torch.Tensor:
        """Where the perturbation of an epoch begins: `[1,C,H,W]`, the same on every process."""
        seed = torch.full((1,), self.epoch or 0, device=images.device)
        noise = uniform_noise(seed, images.shape[1:])
        return (2 * noise - 1) * eps if random_start else torch.zeros_like(noise)
