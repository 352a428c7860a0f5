"""What is evaluated and saved instead of the last step's weights: their moving average, a mix with the original."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import TrainerCallback


class WeightAverage(TrainerCallback):
    """Averages of the trained weights, over steps and with those before training.

    Over steps: `average <- decay average + (1 - decay) weights` after each (as R-Adapter does, arXiv 2408.05749). With
    the original: `(1 - share) original + share tuned` (WiSE-FT, arXiv 2109.01903, equation 1), where the tuned weights
    are the average over steps, if there is one.

    Args:
        model (`nn.Module`): Whose trained weights are averaged, as they are before training; each process must hold
            them whole.
        decay (`float`, *optional*): Of the moving average, from 0 to below 1.
        share (`float`, *optional*): Of the tuned weights in the mix, above 0, to 1.
    """

    def __init__(self, model: nn.Module, decay: float | None = None, share: float | None = None):
        self.model, self.decay, self.share = model, decay, share
        self.values: dict[str, torch.Tensor] = {}  # the moving average
        self.original = {} if share is None else self._copies()

    def on_train_begin(self, args, state, control, **kwargs):
        if self.decay is not None and (not self.values or state.global_step == 0):
            self.values = self._copies()

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        for name, weight in self._trained() if self.decay is not None else ():
            self.values[name].lerp_(weight, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages in the weights' place, and afterwards the weights back."""
        weights = dict(self._trained())
        kept = {name: weight.data for name, weight in weights.items()}
        for name, value in kept.items():
            tuned = self.values.get(name, value).to(value.device)
            original = self.original.get(name)
            weights[name].data = (
                tuned if original is None else torch.lerp(original.to(value.device), tuned, self.share)
            )
        try:
            yield
        finally:
            for name, value in kept.items():
                weights[name].data = value

    def _copies(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._trained()}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
