"""A Trainer whose checkpoints are complete or ignored, and whose model can be had whole, outside its engine.

It knows nothing of CLIP. One chain of `super()` leads from here over `StreamTrainer` and `HubTrainer` to
`transformers.Trainer`; what does not call it are functions, in `checkpoints.py`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..engines import adapt_to_processes, copy_trained, load_whole_models, local_part
from ..files import free_space, save_tensors, write_whole, writing_into
from ..hub.upload import EXTRA_STATE
from ..models.processors import save_processor
from ..modes import frozen, full_precision, without_tf32
from ..tuning.saved import TRAINING_CONFIG
from . import checkpoints
from .callbacks import StopOnSignal, WatchBudget, WeightAverage
from .checks import check_training
from .progress_bars import show_accuracies
from .run_folder import TRAINED, RunFolder, settings_of
from .running_means import RunningMeans
from .stream_trainer import StreamTrainer
from .streams import POSITION

logger = logging.getLogger(__name__)


class BaseTrainer(StreamTrainer):
    """What [`PMGAFTTrainer`] is beside its method: checkpoints, resume, signals and averages of weights.

    A subclass says what a run is by `fingerprint`, what a model is on disk by `save_weights` and `load_weights`, and
    what else a checkpoint holds by `extra_state`, `load_extra_state` and `load_attack_state`.
    """

    # The loss is a mean over the micro-batch, whatever `num_items_in_batch` says: Trainer divides it for accumulation.
    loss_is_scaled_for_ga = False
    # By how many micro-batches it divides; Trainer sets it for each step of the optimizer.
    current_gradient_accumulation_steps = 1

    def __init__(self, model: nn.Module, args: Any, **kwargs: Any):
        # `StopOnSignal` takes the place of Trainer's callback, which this option would add.
        stop_on_signal, args.enable_jit_checkpoint = args.enable_jit_checkpoint, False
        super().__init__(model=model, args=args, **kwargs)
        args.enable_jit_checkpoint = stop_on_signal

        show_accuracies(self)

        self.folder = RunFolder(self.args.output_dir, settings_of(self.args))
        self.means = RunningMeans(self.args.device)
        self._newest_checkpoint: Path | None = None

        self._signals = StopOnSignal()
        if stop_on_signal:
            self.add_callback(self._signals)

        self.add_callback(WatchBudget)

        # Averages of the weights
        self.average: WeightAverage | None = None
        if args.averages_weights:
            self.average = WeightAverage(self.model, args.ema_decay, args.wise_ft)
            self.add_callback(self.average)

        # An engine that shares out the weights takes them away from the model, of which a copy stays outside.
        load_whole_models()
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        self._copy_outside: nn.Module | None = copy.deepcopy(self.model) if is_sharded else None

    # ---- What a subclass says ----

    def fingerprint(self) -> dict[str, Any]:
        """What a run must share with another for one to resume the other's checkpoints."""
        raise NotImplementedError

    def save_weights(self, model: nn.Module, folder: Path) -> None:
        """Writes a whole model into a folder."""
        raise NotImplementedError

    def load_weights(self, folder: Path) -> bool:
        """Reads back what `save_weights` wrote, where Trainer itself cannot; says whether it did."""
        return False

    def extra_state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint needs beside the model's weights."""
        return {}

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Takes back, with the weights, what `extra_state` gave."""

    def load_attack_state(self, state: dict[str, torch.Tensor]) -> None:
        """Takes back, at the beginning of a resumed run, what its attack had carried from batch to batch."""

    def as_evaluated(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Puts a plain model in the state in which it is evaluated, where that differs from training."""
        return contextlib.nullcontext()

    # ---- The model outside its engine ----

    @property
    def unsharded_model(self) -> nn.Module:
        """The model with parameters of their whole shapes, whose values may be those before training."""
        return self.model if self._copy_outside is None else self._copy_outside

    @property
    def is_sharded(self) -> bool:
        """Whether an engine holds the weights in parts."""
        return self._copy_outside is not None

    def plain_model(self) -> nn.Module:
        """The model as it is now: whole, in float32, with the parameter names of its checkpoint.

        The model itself where the engine leaves it whole, else a copy on the CPU. All processes must ask together.
        """
        if self._copy_outside is None:
            return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        copy_trained(self.accelerator.unwrap_model(self.model, keep_torch_compile=False), self._copy_outside)
        return self._copy_outside

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts averaged weights in the model, where they are asked for, and afterwards the last step's back."""
        with contextlib.nullcontext() if self.average is None else self.average.applied():
            yield

    @contextlib.contextmanager
    def evaluation_model(self) -> Iterator[nn.Module]:
        """The plain model in eval mode and float32, frozen, on this process's device; afterwards as it was.

        Before the first step it is the model as it came, without the random prompts or adapters that training begins
        with.
        """
        try:
            with self.averaged_weights():
                model = self.plain_model()
                # Verdicts are of the plain arithmetic, whatever the passes of training were compiled to.
                eager = torch.compiler.set_stance("force_eager")
                with eager, full_precision(model), without_tf32(), frozen(model), self.as_evaluated(model):
                    yield model.to(self.args.device)
        finally:
            if self.is_sharded:
                self.unsharded_model.cpu()

    # ---- Training and its end ----

    @property
    def interrupted(self) -> bool:
        """Whether SIGTERM or Ctrl-C ended the last training, with a checkpoint."""
        return self._signals.stopped_by is not None

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that ended the last training, if one did."""
        return self._signals.stopped_by

    def check_training(self, resume_from_checkpoint: str | Path | bool | None = None) -> None:
        """Raises `ValueError` for what `train` would refuse by the data, the weights, or the checkpoint."""
        check_training(self.args, self.train_dataset, self.model)
        if resume_from_checkpoint:
            fingerprint = checkpoints.as_stored(self.fingerprint())
            checkpoints.to_resume(resume_from_checkpoint, self.args.output_dir, fingerprint)

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Trains; `resume_from_checkpoint=True` goes on from the newest complete checkpoint of `output_dir`.

        Raises:
            FloatingPointError: if the loss or the weights became NaN or infinite.
            KeyboardInterrupt: after Ctrl-C, when the running step is made and its checkpoint written.
            ValueError: if there is nothing to train on or nothing that is trained, or the checkpoint is incomplete or
                of another kind of run.
        """
        resume_from_checkpoint = checkpoints.parse_resume(resume_from_checkpoint)
        if resume_from_checkpoint not in (None, True):
            checkpoints.check_complete(resume_from_checkpoint)
        self.check_training()
        with self.folder.locked():
            base = getattr(self.model, "name_or_path", None)
            self.folder.check(resume_from_checkpoint, self.args.overwrite, [base])
            output = self._train(resume_from_checkpoint, **kwargs)
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt  # what follows in a notebook or script is not for half a training
        return output

    def _train(self, resume_from_checkpoint, **kwargs):
        # Taken before training, so that an objective whose state changes keeps the fingerprint it began with.
        self._fingerprint = checkpoints.as_stored(self.fingerprint())
        checkpoint = checkpoints.to_resume(resume_from_checkpoint, self.args.output_dir, self._fingerprint)
        self.begin_stream_at = (0, 0)
        if checkpoint is not None:
            adapt_to_processes(self.accelerator, str(checkpoint))
            if (checkpoint / EXTRA_STATE).is_file():
                state = load_file(checkpoint / EXTRA_STATE)
                self.load_attack_state(state)
                if POSITION in state:
                    self.begin_stream_at = tuple(state[POSITION].tolist())
        self.means.clear()
        self._newest_checkpoint = None if checkpoint is None else checkpoint.resolve()

        self.folder.begin(checkpoint, self.args.overwrite)
        with self._signals.listening() if self.args.enable_jit_checkpoint else contextlib.nullcontext():
            resume = None if checkpoint is None else str(checkpoint)
            output = super().train(resume_from_checkpoint=resume, **kwargs)
        self._check_weights()
        if self.state.global_step == 0:
            raise ValueError("No step was made, so nothing was trained. Pass a training set that fills a batch.")
        if not self.interrupted:
            self.folder.note(TRAINED, self.state.global_step)
        if self._made_no_step and self.is_world_process_zero():
            logger.warning(
                "Step %d of %d was reached before: nothing was left to train.",
                self.state.global_step,
                self.state.max_steps,
            )
        return output

    @property
    def _made_no_step(self) -> bool:
        return self.state.global_step == self._initial_global_step

    def _run_epoch(self, **kwargs):
        # Trainer looks for the end after a step, and so makes one more in a run that is resumed there.
        if self.state.global_step < self.state.max_steps:
            self.folder.before_steps()
            super()._run_epoch(**kwargs)
        else:
            self.control.should_training_stop = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means over all samples since the last line and over processes."""
        if "loss" in logs:
            self._check_finite()
            logs.update(self.means.pop())
        if "train_loss" in logs and self._made_no_step:
            del logs["train_loss"]  # there was none, and Trainer says 0
        super().log(logs, start_time)

    def _check_weights(self) -> None:
        self.means.note_finite(
            local_part(parameter).detach() for parameter in self.model.parameters() if parameter.requires_grad
        )
        self._check_finite()

    def _check_finite(self) -> None:
        if not self.means.all_finite():
            raise FloatingPointError(
                f"The loss or the weights became NaN or infinite by step {self.state.global_step}, so training stops; "
                "checkpoints saved before are good. Lower learning_rate, or use bf16 instead of fp16, and resume."
            )

    # ---- What is written and read back ----

    def save_model(self, output_dir=None, _internal_call=False):
        """Saves model, processor and the run's configuration as JSON; never a pickle of the arguments.

        The weights are whole and in float32 under every engine; all processes must call it.
        """
        folder = Path(output_dir or self.args.output_dir)
        # A run goes on from the last step's weights, not from their average.
        is_checkpoint = folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")
        with contextlib.nullcontext() if is_checkpoint else self.averaged_weights():
            model = self.plain_model()
            if self.args.should_save:
                self.folder.note_use(folder)
                self.write_model(model, folder)
                self._write_config(folder)

        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def write_model(self, model: nn.Module, folder: Path) -> None:
        """Writes a whole model with its processor into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with writing_into(folder):
            self.save_weights(model, folder)
            save_processor(self.processing_class, folder)

    def config_to_save(self) -> dict[str, Any]:
        """The run's configuration as it is written beside a model; tokens are left out."""
        return {name: value for name, value in self.args.to_dict().items() if not name.endswith("_token")}

    def _write_config(self, folder: Path) -> None:
        text = json.dumps(self.config_to_save(), indent=1, default=str)
        write_whole(folder / TRAINING_CONFIG, text + "\n")

    def _save_checkpoint(self, model, trial):
        self._check_weights()
        folder = (
            Path(self._get_output_dir(trial=trial)).resolve() / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        )
        if folder == self._newest_checkpoint:
            return  # it was just saved; writing it again would put it at risk
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # left by a run that was cut off, or by another run
        self.accelerator.wait_for_everyone()

        try:
            self._write_checkpoint(folder, model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"{folder} could not be written ({error}; {free_space(folder)}). Make room or mend the folder, and "
                f"resume; the last complete checkpoint is {self._newest_checkpoint or 'none'}."
            ) from error
        self._newest_checkpoint = folder
        self.accelerator.wait_for_everyone()

        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _write_checkpoint(self, folder: Path, model: nn.Module, trial: Any) -> None:
        # Rotation and upload wait until the checkpoint is sealed, so that a complete one is there at any time.
        with _changed(self.args, save_total_limit=None, push_to_hub=False):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if not self.args.should_save:
            return

        self._write_config(folder)  # with the values that were put aside above
        state = {name: value.detach().contiguous() for name, value in self.extra_state().items()}
        if self.average is not None:
            state |= {f"average.{name}": value.contiguous() for name, value in self.average.values.items()}
        if self.passes is not None:
            state[POSITION] = self.passes.position(self.state.global_step)
        if state:
            save_tensors(state, folder / EXTRA_STATE)
        checkpoints.seal(folder, self._fingerprint)

        needed = [folder]
        if self.state.best_model_checkpoint is not None:
            needed.append(Path(self.state.best_model_checkpoint))
        if self.is_uploading():
            needed.append(self.uploaded_checkpoint)
        checkpoints.rotate(folder.parent, self.args.save_total_limit, needed)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        folder = Path(resume_from_checkpoint)
        if self.is_sharded or not self.load_weights(folder):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_state_beside_weights(folder)

    def _load_best_model(self):
        folder = Path(self.state.best_model_checkpoint)
        if self.is_sharded or not self.load_weights(folder):
            super()._load_best_model()
        self._load_state_beside_weights(folder)

    def _load_state_beside_weights(self, folder: Path) -> None:
        if self.is_sharded or not (folder / EXTRA_STATE).is_file():
            return  # an engine that shares out the weights keeps all of them in its own files
        state = load_file(folder / EXTRA_STATE, device=str(self.args.device))
        self.load_extra_state(state)
        if self.average is not None:
            self.average.values = checkpoints.part_of(state, "average")


@contextlib.contextmanager
def _changed(args: Any, **values: Any) -> Iterator[None]:
    """Gives the arguments other values for a while."""
    before = {name: getattr(args, name) for name in values}
    for name, value in values.items():
        setattr(args, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)
