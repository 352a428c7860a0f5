"""What happens beside the steps of training: SIGTERM ends it, and weights are averaged."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import torch
from torch import nn
from transformers import ProgressCallback, TrainerCallback

from ..distributed import any_process
from ..progress import LOG_INTERVAL


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, ends training with a checkpoint after the running step, on all processes after the same one.

    Trainer's own callback waits on each process for itself, so that they would stop at different steps, saves in the
    middle of a step, where dropout has drawn its numbers, and swallows the signal outside of training.
    """

    def __init__(self):
        self.received = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catches the signal; only the main thread can."""
        self.received = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._receive)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args, state, control, **kwargs):
        self.received = any_process(self.received)
        if self.received:
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def _receive(self, *_):
        self.received = True


class WeightAverage(TrainerCallback):
    """Keeps an average of the trained weights, over steps, with those before training, or both.

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
        self.model = model
        self.decay = decay
        self.share = share
        self.values: dict[str, torch.Tensor] = {}  # the moving average
        self.original = {} if share is None else self._copies()

    def on_train_begin(self, args, state, control, **kwargs):
        if self.decay is not None and (not self.values or state.global_step == 0):
            self.values = self._copies()

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        if self.decay is None:
            return
        for name, weight in self._trained():
            self.values[name].lerp_(weight, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages in the weights' place, and afterwards the weights back."""
        weights = dict(self._trained())
        last = {name: weight.data for name, weight in weights.items()}
        for name, value in last.items():
            average = self.values.get(name, value).to(value.device)
            if name in self.original:
                average = torch.lerp(self.original[name].to(value.device), average, self.share)
            weights[name].data = average
        try:
            yield
        finally:
            for name, value in last.items():
                weights[name].data = value

    def _copies(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._trained()}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]


class LogFileProgress(ProgressCallback):
    """Trainer's progress bar where it is written into a file, which gets a line a minute."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.mininterval = self.training_bar.maxinterval = LOG_INTERVAL
