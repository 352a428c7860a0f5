"""What a trainer writes and reads back: checkpoints, the model, its card."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..attacks.shared_perturbation import SharedPerturbation
from ..distributed import gather
from ..engines import adapt_to_processes, checkpoint_format, local_part
from ..fingerprints import digest_of_list
from ..hub.card import save_model_card
from ..hub.upload import EXTRA_STATE
from ..models.backbones import unwrap, unwrap_peft
from ..plots.reports import training_curves
from ..tuning import fold_into_clip, name_of, options_of
from ..tuning.base import attachment
from ..tuning.peft_adapter import has_adapter
from ..tuning.saved import TRAINING_CONFIG, load_tuning, save_tuning
from ..zero_shot.text import export_class_embeds
from . import checkpoints
from .callbacks import SamplePictures, classified

logger = logging.getLogger(__name__)

# What peft sets or changes by itself.
UNCHECKED_ADAPTER_KEYS = ("base_model_name_or_path", "inference_mode", "peft_version")


class Saving:
    """The half of [`PMGAFTTrainer`] that meets the disk; [`~hf_pmgaft.hub.Pushing`] meets the Hub."""

    def fingerprint(self) -> dict[str, Any]:
        """What a run must share with another for one to resume the other's checkpoints."""
        args, names = self.args, self.guidance_names
        model = self.model if self._plain is None else self._plain  # an engine may hold parameters in parts
        adapters = {
            name: {key: value for key, value in config.to_dict().items() if key not in UNCHECKED_ADAPTER_KEYS}
            for name, config in getattr(model, "peft_config", {}).items()
        }
        return {
            "objective": type(self.objective).__name__,
            "objective_options": vars(self.objective),
            "attack": args.attack,
            "attack_options": args.attack_options(),
            "attack_precision": args.attack_precision,
            "augmentation": args.augmentation,
            "weights": {"teacher": "the model before training", **self._weights},
            "adapters": adapters,
            "tuning": name_of(self.tuning),
            "tuning_options": {} if adapters else options_of(self.tuning),
            "ema_decay": args.ema_decay,
            "class_names": digest_of_list(self.class_names or ()),
            "guidance_names": None if names is None else digest_of_list(names),
            "prompt_templates": self.prompt_templates,
            "train_dataset": checkpoints.data_fingerprint(self.train_dataset),
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "seed": args.seed,
            "engine": checkpoint_format(self.accelerator),
        }

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Trains; `resume_from_checkpoint=True` goes on from the newest complete checkpoint of `output_dir`.

        Raises:
            FloatingPointError: if the loss or the weights became NaN or infinite.
            ValueError: if there is nothing to train on, or the checkpoint is incomplete or of another kind of run.
        """
        if self.train_dataset is None:
            raise ValueError("There is nothing to train on. Pass `train_dataset`.")
        # Taken before training, so that an objective whose state changes keeps the fingerprint it began with.
        self._fingerprint = json.loads(json.dumps(self.fingerprint(), default=_plain))
        if isinstance(resume_from_checkpoint, bool) and resume_from_checkpoint:
            resume_from_checkpoint, skipped = checkpoints.newest_complete(self.args.output_dir)
            for reason in skipped:
                logger.warning("Skipped an incomplete checkpoint: %s", reason)
        if resume_from_checkpoint:
            reason = checkpoints.defect(resume_from_checkpoint)
            if reason is not None:
                raise ValueError(
                    f"Checkpoint {str(resume_from_checkpoint)!r} cannot be resumed from: {reason}. Pass a complete "
                    "one, or resume_from_checkpoint=True for the newest of them."
                )
            reasons = gather([checkpoints.other_run(resume_from_checkpoint, self._fingerprint)])
            if any(reasons):  # on whatever process, none goes on
                raise ValueError(next(filter(None, reasons)))
            adapt_to_processes(self.accelerator, str(resume_from_checkpoint))
            self._load_attack(Path(resume_from_checkpoint))
        self._sums, self._finite = {}, torch.ones_like(self._finite)
        self._newest_checkpoint = Path(resume_from_checkpoint).resolve() if resume_from_checkpoint else None
        with self._sigterm.listening() if self.args.enable_jit_checkpoint else contextlib.nullcontext():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        self._check_weights()
        return output

    def _save_checkpoint(self, model, trial):
        self._check_weights()
        run_dir = Path(self._get_output_dir(trial=trial)).resolve()
        folder = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if folder == self._newest_checkpoint:
            return  # it was just saved; writing it again would put it at risk
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # left by a run that was cut off, or by another run
        self.accelerator.wait_for_everyone()
        try:
            self._write_checkpoint(folder, model, trial)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{folder} could not be written ({error}). Make room or mend the folder, and resume; the last "
                f"complete checkpoint is {self._newest_checkpoint or 'none'}."
            ) from error
        self._newest_checkpoint = folder
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _write_checkpoint(self, folder: Path, model, trial) -> None:
        # Rotation and upload wait until the checkpoint is sealed, so that a complete one is there at any time.
        later = {"save_total_limit": None, "push_to_hub": False}
        wanted = {name: getattr(self.args, name) for name in later}
        vars(self.args).update(later)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            vars(self.args).update(wanted)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._save_config(folder)
            self._save_extra_state(folder)
            checkpoints.seal(folder, self._fingerprint)
            best = self.state.best_model_checkpoint
            kept = [folder] if best is None else [folder, Path(best)]
            if self._is_pushing():
                kept.append(self._pushed_folder)
            checkpoints.rotate(folder.parent, self.args.save_total_limit, kept)

    def _check_weights(self) -> None:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        finite = torch.stack([torch.isfinite(local_part(parameter).detach()).all() for parameter in trained]).all()
        self._finite = self._finite * finite.to(self._finite.device)
        self._check_finite()

    def save_model(self, output_dir=None, _internal_call=False):
        """Saves model, processor and the run's configuration as JSON; never a pickle of the arguments.

        The weights are whole and in float32 under every engine; all processes must call it.
        """
        output_dir = Path(output_dir or self.args.output_dir)
        checkpoint = output_dir.name.startswith(
            f"{PREFIX_CHECKPOINT_DIR}-"
        )  # goes on from the weights, not the average
        with contextlib.nullcontext() if checkpoint else self._averaged():
            model = self.plain_model()
            if self.args.should_save:
                output_dir.mkdir(parents=True, exist_ok=True)
                self._save_weights(model, output_dir)
                self.processing_class.save_pretrained(output_dir)
                self._save_config(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_weights(self, model: nn.Module, folder: Path) -> None:
        if attachment(unwrap_peft(model)) is not None:
            save_tuning(model, folder, self._base_name)
        elif model is unwrap_peft(model):
            weights = {name: value for name, value in model.state_dict().items() if not name.startswith("objective.")}
            model.save_pretrained(folder, state_dict=weights)
        else:
            model.save_pretrained(folder)

    def _save_extra_state(self, folder: Path) -> None:
        """What a checkpoint needs beside the model's weights: what objective and attack carry on, and the average."""
        state = {f"objective.{name}": value.detach().contiguous() for name, value in self._learned().items()}
        if self._average is not None:
            state.update({f"average.{name}": value.contiguous() for name, value in self._average.values.items()})
        if isinstance(self._training_attack, SharedPerturbation):
            state.update({f"attack.{name}": value for name, value in self._training_attack.state().items()})
        if state:
            save_file(state, folder / EXTRA_STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self._plain is None and attachment(unwrap(self.model)) is not None:
            load_tuning(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_extra_state(Path(resume_from_checkpoint))

    def _load_best_model(self):
        if self._plain is None and attachment(unwrap(self.model)) is not None:
            load_tuning(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()
        self._load_extra_state(Path(self.state.best_model_checkpoint))

    def _load_attack(self, folder: Path) -> None:
        """Takes back what a training attack carries from batch to batch."""
        if isinstance(self._training_attack, SharedPerturbation) and (folder / EXTRA_STATE).is_file():
            if carried := _part(load_file(folder / EXTRA_STATE), "attack"):
                self._training_attack.load(carried)

    def _load_extra_state(self, folder: Path) -> None:
        if self._plain is not None or not (folder / EXTRA_STATE).is_file():
            return  # an engine that shares out the weights keeps all of them in its own files
        state = load_file(folder / EXTRA_STATE, device=str(self.args.device))
        with torch.no_grad():
            for name, value in self._learned().items():
                value.copy_(state[f"objective.{name}"])
        if self._average is not None:
            self._average.values = _part(state, "average")

    def _save_config(self, folder: Path) -> None:
        config = {name: value for name, value in self.args.to_dict().items() if not name.endswith("_token")}
        # An adapter's base is read at its own resolution, which may be another.
        config["image_size"] = self.backbone.image_size(unwrap(self.model))
        (folder / TRAINING_CONFIG).write_text(json.dumps(config, indent=1, default=str) + "\n")

    def save_reports(self) -> None:
        """Writes what was measured so far: `robustness.json`, that of before training, sample pictures and curves.

        All processes must call it.
        """
        report, folder = self.last_report, Path(self.args.output_dir)
        if report is not None and report.picture is None and classified(self.eval_dataset):
            pictures = SamplePictures(self)
            pictures.attack("model")
            pictures.show()
        if not self.is_world_process_zero():
            return
        folder.mkdir(parents=True, exist_ok=True)
        if report is not None:
            report.save(folder / "robustness.json")
            if report.picture is not None:
                (folder / "gallery.png").write_bytes(report.picture)
        if self.first_report is not None and self.first_report is not report:
            self.first_report.save(folder / "robustness_before.json")
        if self.state.global_step:
            training_curves(self.state.log_history, folder / "training_curves.png")

    def create_model_card(self, finetuned_from=None, dataset=None, license=None, folder=None, **unused) -> None:
        """Writes the card with the reports made so far and the pictures beside it; `push_to_hub` calls this too."""
        if not self.is_world_process_zero():
            return
        folder = Path(folder or self.args.output_dir)
        save_model_card(
            folder,
            base_model=finetuned_from or self._base_model,
            objective=self.objective,
            tuning=self.tuning,
            config=self.args,
            report_before=self.first_report,
            report_after=self.last_report,
            dataset_name=dataset or self._dataset_name,
            plots=sorted(path.name for path in folder.glob("*.png")),
            licence=license,
            train_dataset=self.train_dataset,
            model_class=type(unwrap(self.model if self._plain is None else self._plain)).__name__,
        )
        self._base_model, self._dataset_name = finetuned_from or self._base_model, dataset or self._dataset_name

    def save_standalone(self, output_dir: str | None = None) -> None:
        """Saves, beside an adapter or prompts, what serves without them: the merged model in `merged`, or the class
        embeddings of the training classes in `class_embeds.safetensors`. Nothing where the model is a plain one."""
        folder, added = Path(output_dir or self.args.output_dir), attachment(unwrap(self.model))
        if added is None and not has_adapter(self.model):
            return
        if added is None or added.folds:
            self.save_merged(str(folder / "merged"))
        elif self.class_names:
            with self.evaluation_model() as model:
                if self.args.should_save:
                    export = (self.class_names, folder / "class_embeds.safetensors", self.prompt_templates)
                    export_class_embeds(model, self.processing_class, *export)

    def save_merged(self, output_dir: str | None = None) -> None:
        """Saves a plain model with the adapter, if there is one, merged into its weights."""
        output_dir = output_dir or self.args.output_dir
        with self._averaged():
            self._save_merged(self.plain_model(), output_dir)

    def _save_merged(self, model: nn.Module, output_dir: str) -> None:
        if self.args.should_save:
            folded = fold_into_clip(model)
            self._save_weights(folded, Path(output_dir))
            self.processing_class.save_pretrained(output_dir)


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.partition(".")[2]: value for name, value in state.items() if name.partition(".")[0] == prefix}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
