"""Exponential moving average of the trained weights, for evaluation and the saved model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import TrainerCallback


class WeightAverage(TrainerCallback):
    """Keeps `average <- decay average + (1 - decay) weights` after each step (as R-Adapter does, arXiv 2408.05749).

    Args:
        model (`nn.Module`): Whose trained weights are averaged; each process must hold them whole.
        decay (`float`): From 0 to below 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.values: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if not self.values or state.global_step == 0:
            self.values = {name: weight.detach().clone() for name, weight in self._trained()}

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        for name, weight in self._trained():
            self.values[name].lerp_(weight, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average in the weights' place, and afterwards the weights back."""
        if not self.values:
            yield
            return
        weights = dict(self._trained())
        kept = {name: weights[name].data for name in self.values}
        for name, value in self.values.items():
            weights[name].data = value.to(kept[name].device)
        try:
            yield
        finally:
            for name, value in kept.items():
                weights[name].data = value

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
