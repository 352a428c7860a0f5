"""What happens beside the steps of training: signals end it, weights are averaged, and the budget is watched."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import statistics
from collections.abc import Iterator

import torch
from torch import nn
from transformers import TrainerCallback
from transformers.training_args import OptimizerNames

from ..distributed import max_over_processes
from ..signals import catching_signals

logger = logging.getLogger(__name__)

STOPPING = b"Stopping after this step, with a checkpoint. A second Ctrl-C or SIGTERM ends at once.\n"


class StopOnSignal(TrainerCallback):
    """On SIGTERM or Ctrl-C (SIGINT), ends training with a checkpoint after the running step, on all processes after
    the same one. A second signal ends the process at once.

    Trainer's own callback waits on each process for itself, so that they would stop at different steps, saves in the
    middle of a step, where dropout has drawn its numbers, swallows SIGTERM outside of training, and knows no Ctrl-C.

    Attributes:
        stopped_by (`signal.Signals`, *optional*): What ended the last training, on all processes the same.
    """

    def __init__(self):
        self.stopped_by: signal.Signals | None = None
        self._received = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catches the signals; only the main thread can."""
        self.stopped_by = None
        self._received = 0
        with catching_signals(self._receive):
            yield

    def on_step_end(self, args, state, control, **kwargs):
        received = max_over_processes(self._received)
        if received:
            self.stopped_by = signal.Signals(received)
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def _receive(self, number: signal.Signals) -> None:
        self._received = number
        os.write(2, STOPPING)  # in a handler, a buffered stream may be in the middle of a line


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


class WatchBudget(TrainerCallback):
    """Warns of what makes another recipe of a run: a warm-up that outlasts it, and SGD whose gradients are clipped.

    SGD's steps are as long as its gradients, so that clipping divides the learning rate; Adam hardly notices.
    """

    def __init__(self):
        self.norms: list[float] = []  # those that were logged

    def on_train_begin(self, args, state, control, **kwargs):
        self.norms = []
        warmup = args.get_warmup_steps(state.max_steps)
        if state.is_world_process_zero and 0 < state.max_steps <= warmup:
            logger.warning(
                f"The run has {state.max_steps} steps, but warmup_steps={args.warmup_steps:g}, so that it never "
                f"reaches the learning rate {args.learning_rate:g}. Pass a share of the run, such as warmup_steps=0.1."
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in (logs or {}):
            self.norms.append(logs["grad_norm"])

    def on_train_end(self, args, state, control, **kwargs):
        clipped = sum(0 < args.max_grad_norm < norm for norm in self.norms)
        if state.is_world_process_zero and args.optim == OptimizerNames.SGD and 2 * clipped > len(self.norms):
            logger.warning(
                f"Gradients were clipped to max_grad_norm={args.max_grad_norm:g} in {clipped} of {len(self.norms)} "
                f"logged steps. With a mean norm of {statistics.fmean(self.norms):.1f}, that divided SGD's learning "
                "rate. Pass max_grad_norm=0 for gradients as they are."
            )
