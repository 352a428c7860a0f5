"""`PMGAFTTrainer`: adversarial fine-tuning of a dual encoder as a `transformers.Trainer`."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import upload_folder
from torch import nn
from transformers import AutoModel, AutoProcessor, EvalPrediction, PreTrainedModel, Trainer, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, speed_metrics
from transformers.utils import PushInProgress

from . import checkpoints
from .attacks import TRAINING_ATTACKS, frozen, sample_seeds
from .backbones import get_backbone, unwrap_peft
from .config import PMGAFTConfig, check_output_dir
from .data import Collator, ZeroShotDataset, augment, stack, training_examples
from .engines import (
    adapt_to_processes,
    checkpoint_format,
    copy_trained,
    full_precision,
    gather,
    load_whole_models,
    local_part,
    prepare_for_engines,
)
from .evaluation import evaluate_robustness
from .hub import save_model_card
from .objectives import Objective, make_objective
from .report import RobustnessReport
from .tuning import fold_into_clip, has_adapter, prepare_model
from .zero_shot import (
    DEFAULT_PROMPT_TEMPLATES,
    Views,
    ZeroShotClassifier,
    check_class_names,
    check_prompt_templates,
    encode_class_names,
    pixel_statistics,
)

logger = logging.getLogger(__name__)

# What peft sets or changes by itself.
UNCHECKED_ADAPTER_KEYS = ("base_model_name_or_path", "inference_mode", "peft_version")


class PMGAFTTrainer(Trainer):
    """Trains a CLIP whose zero-shot predictions withstand adversarial images.

    Args:
        model (`CLIPModel` or `str`): The model to tune, or its name or folder.
        args (`PMGAFTConfig`, *optional*): Threat model, objective and everything of `TrainingArguments`.
        train_dataset (*optional*): Rows with an image and a label column, or with processor-made `pixel_values` and
            `labels`; map-style or streaming.
        eval_dataset (*optional*): A labelled image set, a `ZeroShotDataset`, or a dict of them.
        processing_class (`CLIPProcessor`, *optional*): Loaded with the model if that is a name.
        teacher (`CLIPModel` or `str`, *optional*): The frozen guide; the model itself before training if not given.
        class_names (`list[str]`, *optional*): One per training label; those of the set's `ClassLabel` if not given.
        prompt_templates (`str` or `list[str]`): How class names become prompts.
        guidance_names (`list[str]`, *optional*): Names that the guidance terms range over instead of the classes.
        objective (`str` or `Objective`, *optional*): Overrides that of `args`.
        peft_config (`peft.PeftConfig`, *optional*): Train an adapter in the vision tower; the teacher is then the
            model with the adapter off.
        data_collator, compute_metrics, callbacks, optimizers: As in `Trainer`. `compute_metrics` receives the clean
            logits and the labels of each evaluation set.
    """

    # The loss is a mean over the micro-batch, whatever `num_items_in_batch` says: Trainer divides it for accumulation.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str,
        args: PMGAFTConfig | None = None,
        data_collator: Callable | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list | None = None,
        optimizers: tuple = (None, None),
        *,
        teacher: PreTrainedModel | str | None = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        guidance_names: Sequence[str] | None = None,
        objective: str | Objective | None = None,
        peft_config: Any = None,
    ):
        args = PMGAFTConfig(output_dir="trainer_output") if args is None else args
        check_output_dir(args.output_dir)
        if isinstance(model, str):
            processing_class = processing_class or AutoProcessor.from_pretrained(model)
            model = AutoModel.from_pretrained(model, dtype=torch.float32)
        self.backbone = get_backbone(model)
        if processing_class is None:
            raise ValueError(
                "You passed a model object without its processor, so neither prompts nor pixels can be made. Pass "
                "`processing_class=CLIPProcessor.from_pretrained(...)`."
            )
        pixel_statistics(processing_class)
        self._base_model, self._dataset_name = getattr(model, "name_or_path", "") or "a CLIPModel", None
        self.objective = make_objective(objective or args.objective, None if objective else args.objective_kwargs)
        self.prompt_templates = check_prompt_templates(prompt_templates)
        self.guidance_names = None if guidance_names is None else check_class_names(guidance_names)
        if train_dataset is not None:
            train_dataset = training_examples(train_dataset, processing_class, class_names)
        self.class_names = self._class_names(class_names, train_dataset)
        self._user_teacher = self._check_teacher(teacher, model, peft_config)
        self._weights = {"model": checkpoints.weights_digest(model)}
        if self._user_teacher is not None:
            self._weights["teacher"] = checkpoints.weights_digest(self._user_teacher)
        # The teacher is the model as it comes; with an adapter it is the same weights with the adapter off.
        if self._user_teacher is not None:
            self._teacher = get_backbone(self._user_teacher).vision_copy(self._user_teacher)
        elif peft_config is not None or has_adapter(model):
            self._teacher = None
        else:
            self._teacher = self.backbone.vision_copy(model)
        prepare_for_engines(unwrap_peft(model))
        set_seed(args.seed)  # before the adapter draws its first weights
        model = prepare_model(model, args.trainable_layers, peft_config)
        collator = Collator(processing_class, len(self.class_names), data_collator) if self.class_names else None
        # Ours takes the place of Trainer's callback, see there.
        stop_on_sigterm, args.enable_jit_checkpoint = args.enable_jit_checkpoint, False
        super().__init__(
            model=model,
            args=args,
            data_collator=collator or data_collator or stack,
            train_dataset=train_dataset,
            eval_dataset=self._zero_shot_sets(eval_dataset, processing_class),
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        if self._teacher is not None:
            self._teacher.to(self.args.device)
        self.first_report: RobustnessReport | None = None
        self.last_report: RobustnessReport | None = None
        self._sums: dict[str, torch.Tensor] = {}
        self._finite = torch.ones((), device=self.args.device)
        self._newest_checkpoint: Path | None = None
        args.enable_jit_checkpoint = stop_on_sigterm
        self._sigterm = checkpoints.StopOnSigterm()
        if stop_on_sigterm:
            self.add_callback(self._sigterm)
        load_whole_models()
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        self._plain = copy.deepcopy(self.model) if sharded else None
        with self.evaluation_model() as plain:
            self._encode_texts(plain)

    # ---- Set-up ----

    def _class_names(self, given: Sequence[str] | None, dataset: Any) -> list[str] | None:
        if given is not None:
            return check_class_names(given)
        names = getattr(dataset, "class_names", None)
        if names is None and dataset is not None:
            raise ValueError(
                "The training set holds `pixel_values` but no class names, so no prompt can be made. Pass "
                "`class_names`, one name per label."
            )
        return names

    def _check_teacher(self, teacher: Any, model: nn.Module, peft_config: Any) -> nn.Module | None:
        if teacher is None:
            return None
        if isinstance(teacher, str):
            teacher = AutoModel.from_pretrained(teacher, dtype=torch.float32)
        get_backbone(teacher)
        if teacher is model or unwrap_peft(teacher) is unwrap_peft(model):
            raise ValueError(
                "You passed the model itself as its teacher, so the teacher would change while it guides. Leave "
                "`teacher` out (a frozen copy is made), or pass another object."
            )
        shapes = [
            (part.config.vision_config.image_size, part.config.projection_dim)
            for part in (unwrap_peft(model), unwrap_peft(teacher))
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"The teacher's image size and embedding width are {shapes[1]}, the model's {shapes[0]}; their "
                "predictions on the same pixels cannot be compared. Pass a teacher of the model's shape."
            )
        return teacher

    def _zero_shot_sets(self, datasets: Any, processor: Any) -> dict[str, ZeroShotDataset] | None:
        if datasets is None or isinstance(datasets, dict) and not datasets:
            return None
        named = datasets if isinstance(datasets, dict) else {getattr(datasets, "name", "set"): datasets}
        sets = {}
        for name, data in named.items():
            if not isinstance(data, ZeroShotDataset):
                data = ZeroShotDataset(data, processor, prompt_templates=self.prompt_templates, name=name)
            sets[name] = data
        return sets

    @torch.no_grad()
    def _encode_texts(self, model: nn.Module) -> None:
        """Encodes the class prompts once, for student and teacher."""
        if not self.class_names:
            return

        def encode(model: nn.Module, names: Sequence[str] | None) -> torch.Tensor | None:
            if names is None:
                return None
            return encode_class_names(model, self.processing_class, names, self.prompt_templates).to(self.args.device)

        def head(class_embeds: torch.Tensor, guidance_embeds: torch.Tensor | None) -> ZeroShotClassifier:
            scale = self.objective.logit_scale
            options = {"logit_scale": scale, "guidance_embeds": guidance_embeds}
            return ZeroShotClassifier.from_model(model, self.processing_class, class_embeds, **options)

        self.class_embeds = encode(model, self.class_names)
        guidance_embeds = encode(model, self.guidance_names)
        self._student_head = self._teacher_head = head(self.class_embeds, guidance_embeds)
        if self._user_teacher is not None:
            texts = [encode(self._user_teacher, names) for names in (self.class_names, self.guidance_names)]
            self._teacher_head = head(*texts)
            self._user_teacher = None  # its image tower was copied, its text tower has done its work

    @property
    def interrupted(self) -> bool:
        """Whether SIGTERM ended the last training."""
        return self._sigterm.received

    # ---- The model outside its engine ----

    def plain_model(self) -> nn.Module:
        """The model as it is now: whole, in float32, with the parameter names of its checkpoint.

        The model itself where the engine leaves it whole, else a copy on the CPU. All processes must ask together.
        """
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if self._plain is None:
            return model
        copy_trained(model, self._plain)
        return self._plain

    @contextlib.contextmanager
    def evaluation_model(self) -> Iterator[nn.Module]:
        """The plain model in eval mode and float32, frozen, on this process's device; afterwards as it was."""
        model = self.plain_model()
        try:
            with full_precision(model), frozen(model):
                yield model.to(self.args.device)
        finally:
            if model is self._plain:
                model.cpu()

    # ---- One step ----

    def student(self, model: nn.Module) -> ZeroShotClassifier:
        """The training classifier around `model`, wrapped or not, at the objective's logit scale."""
        return self._student_head.by(lambda pixel_values: self.backbone.image_embeds(model, pixel_values))

    def teacher(self) -> ZeroShotClassifier:
        """The frozen guide as a classifier; its passes keep no graph."""
        return self._teacher_head.by(self._encode_by_teacher)

    @torch.no_grad()
    def _encode_by_teacher(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self._teacher is not None:
            with self.accelerator.autocast():
                return self._teacher(pixel_values)
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        try:
            with model.disable_adapter():
                return self.backbone.image_embeds(model, pixel_values)
        finally:
            model.train(training)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attacks the batch and returns the objective's weighted sum of terms; the terms go to the logs by name."""
        labels = inputs["labels"]
        seeds = sample_seeds(self.args.seed, self.state.global_step, inputs["sample_id"])
        classifier = self.student(model)
        images = inputs["pixel_values"].float() * classifier.std + classifier.mean
        images = augment(images.clamp(0, 1), seeds, self.args.augmentation)
        adversarial, teacher = self._attack(images, labels, seeds)
        student = Views(classifier, images, adversarial)
        teacher = teacher.on(adversarial)
        terms = self.objective.loss(student, teacher, labels)
        weights = self.objective.weights
        loss = sum(weights[name] * term for name, term in terms.items())
        self._note(terms, student, teacher, labels)
        self._finite = self._finite * torch.isfinite(loss.detach())
        if return_outputs:
            return loss, {"logits": student.adversarial_logits if self.objective.attacks else student.clean_logits}
        return loss

    def _attack(
        self, images: torch.Tensor, labels: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor | None, Views]:
        """Adversarial images (`None` for an objective without attack), and the teacher's views of the clean ones."""
        # The inner module: DeepSpeed's engine counts a backward for every pass through it. It runs in eval mode and
        # with its parameters frozen, so nothing of the attack reaches their gradients.
        inner = self.accelerator.unwrap_model(self.model)
        classifier, teacher = self.student(inner), Views(self.teacher(), images)
        if not self.objective.attacks:
            return None, teacher
        loss_fn = self.objective.attack_loss(classifier, teacher, labels)
        precision = full_precision(inner) if self.args.attack_fp32 else contextlib.nullcontext()
        with frozen(inner), precision:
            adversarial = TRAINING_ATTACKS[self.args.attack](
                classifier, images, labels, loss_fn=loss_fn, seeds=seeds, **self.args.attack_options()
            )
        return adversarial, teacher

    @torch.no_grad()
    def _note(self, terms: dict[str, torch.Tensor], student: Views, teacher: Views, labels: torch.Tensor) -> None:
        """Adds terms, and accuracies of logits that were computed anyway, to the sums of the next log line."""
        noted = {name: term.detach().float() for name, term in terms.items()}
        for prefix, views in (("", student), ("teacher_", teacher)):
            for view, logits in views.computed().items():
                if view in ("clean_logits", "adversarial_logits"):
                    accuracy = (logits.argmax(1) == labels).float().mean()
                    noted[f"{prefix}{view.removesuffix('logits')}accuracy"] = accuracy
        for name, value in noted.items():
            entry = torch.stack([value * len(labels), value.new_tensor(float(len(labels)))])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the named terms and accuracies, means over all samples since the last line and over processes."""
        if "loss" in logs:
            self._check_finite()
            names = sorted(self._sums)
            if names:
                sums = self.accelerator.reduce(torch.stack([self._sums[name] for name in names]), reduction="sum")
                logs.update({name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True)})
            self._sums = {}
        super().log(logs, start_time)

    def _check_finite(self) -> None:
        finite = self.accelerator.reduce(self._finite.clone(), reduction="sum").item()
        if finite < self.accelerator.num_processes:
            raise FloatingPointError(
                f"The loss or the weights became NaN or infinite by step {self.state.global_step}, so training stops; "
                "checkpoints saved before are good. Lower learning_rate, or use bf16 instead of fp16, and resume."
            )

    # ---- Evaluation ----

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """Clean and robust accuracy of every evaluation set, and their means over sets, by `evaluate_robustness`.

        Returns:
            `dict[str, float]`: `<prefix>_<set>_clean_accuracy`, `<prefix>_<set>_robust_accuracy`,
            `<prefix>_mean_clean_accuracy`, `<prefix>_mean_robust_accuracy`. The whole report, with its protocol, is
            kept as `trainer.last_report`.
        """
        start = time.time()
        sets = self._zero_shot_sets(eval_dataset, self.processing_class) or self.eval_dataset
        if not sets:
            raise ValueError("There is nothing to evaluate. Pass `eval_dataset` to the trainer or to `evaluate`.")
        report = self.evaluate_robustness(sets)
        metrics = report.metrics(metric_key_prefix)
        if self.compute_metrics is not None:
            for name, data in sets.items():
                own = self.compute_metrics(self._clean_predictions(data))
                metrics.update({f"{metric_key_prefix}_{name}_{key}": value for key, value in own.items()})
        total = sum(result.num_samples for result in report.sets)
        metrics.update(speed_metrics(metric_key_prefix, start, num_samples=total))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_robustness(self, sets: Any = None, verdict_file: str | Path | None = None) -> RobustnessReport:
        """The report behind `evaluate`, under the threat model of the configuration.

        The first one made before training and the last one made are kept for the model card. With a `verdict_file`
        the same call goes on where it was killed.
        """
        with self.evaluation_model() as model:
            self.last_report = evaluate_robustness(
                model,
                self.processing_class,
                sets or self.eval_dataset,
                [self.args.eval_attack_spec()],
                batch_size=self.args.eval_batch_size,
                max_samples=self.args.eval_max_samples,
                seed=self.args.seed,
                verdict_file=verdict_file,
                progress=not self.args.disable_tqdm,
            )
        if self.state.global_step == 0 and self.first_report is None:
            self.first_report = self.last_report
        return self.last_report

    @torch.no_grad()
    def _clean_predictions(self, data: ZeroShotDataset) -> EvalPrediction:
        logits, labels = [], []
        with self.evaluation_model() as model:
            embeds = encode_class_names(model, self.processing_class, data.class_names, data.prompt_templates)
            classifier = ZeroShotClassifier.from_model(model, self.processing_class, embeds)
            for start in range(0, len(data), self.args.eval_batch_size):
                rows = [data[i] for i in range(start, min(start + self.args.eval_batch_size, len(data)))]
                images = torch.stack([row["images"] for row in rows]).to(self.args.device)
                logits.append(classifier(images).cpu())
                labels += [row["labels"] for row in rows]
        return EvalPrediction(predictions=torch.cat(logits).numpy(), label_ids=torch.tensor(labels).numpy())

    def predict(self, test_dataset, ignore_keys=None, metric_key_prefix="test"):
        """Clean logits over the training classes, as `Trainer.predict` returns them."""
        test_dataset = training_examples(test_dataset, self.processing_class, self.class_names)
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Clean loss, logits over the training classes, and labels of one batch, in float32."""
        inputs = self._prepare_inputs(inputs)
        with self.evaluation_model() as plain:
            classifier = self.student(plain)
            logits = classifier.logits(classifier.encode_image(inputs["pixel_values"].float()))
        loss = F.cross_entropy(logits, inputs["labels"])
        return (loss, None, None) if prediction_loss_only else (loss, logits, inputs["labels"])

    # ---- Checkpoints ----

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
            "augmentation": args.augmentation,
            "weights": {"teacher": "the model before training", **self._weights},
            "adapters": adapters,
            "class_names": _digest(self.class_names),
            "guidance_names": None if names is None else _digest(names),
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
            reasons = gather([checkpoints.differences(resume_from_checkpoint, self._fingerprint)])
            if any(reasons):  # on whatever process, none goes on
                raise ValueError(next(filter(None, reasons)))
            adapt_to_processes(self.accelerator, str(resume_from_checkpoint))
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
            checkpoints.seal(folder, self._fingerprint)
            best = self.state.best_model_checkpoint
            kept = [folder] if best is None else [folder, Path(best)]
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
        model, output_dir = self.plain_model(), Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            output_dir.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(output_dir)
            self.processing_class.save_pretrained(output_dir)
            self._save_config(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_config(self, folder: Path) -> None:
        config = {name: value for name, value in self.args.to_dict().items() if not name.endswith("_token")}
        (folder / "training_config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")

    def create_model_card(self, finetuned_from=None, dataset=None, license=None, **unused) -> None:
        """Writes the card with the reports made so far and the pictures beside it; `push_to_hub` calls this too."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        save_model_card(
            folder,
            base_model=finetuned_from or self._base_model,
            objective=self.objective,
            config=self.args,
            report_before=self.first_report,
            report_after=self.last_report,
            dataset_name=dataset or self._dataset_name,
            plots=sorted(path.name for path in folder.glob("*.png")),
            licence=license,
        )
        self._base_model, self._dataset_name = finetuned_from or self._base_model, dataset or self._dataset_name

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Uploads a checkpoint's model while training goes on.

        Trainer's own version writes and uploads a pickle of the arguments, token included.
        """
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done() and not args.hub_always_push:
            return
        self._copy_model_files(checkpoint_folder, args.output_dir)
        options = {"repo_id": self.hub_model_id, "token": args.hub_token, "revision": args.hub_revision}
        options |= {"commit_message": f"Training in progress, step {self.state.global_step}", "run_as_future": True}
        ignored = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", "*.bin", "*.pt", "*.pth"]
        jobs = [upload_folder(folder_path=args.output_dir, ignore_patterns=ignored, **options)]
        if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            latest = args.hub_strategy == HubStrategy.CHECKPOINT
            path_in_repo = "last-checkpoint" if latest else Path(checkpoint_folder).name
            jobs.append(upload_folder(folder_path=checkpoint_folder, path_in_repo=path_in_repo, **options))
        self.push_in_progress = PushInProgress(jobs)

    def _copy_model_files(self, checkpoint_folder: str, output_dir: str) -> None:
        for path in Path(checkpoint_folder).iterdir():
            if path.name.endswith(".safetensors") or path.name in ("config.json", "adapter_config.json"):
                shutil.copy(path, output_dir)
        self.processing_class.save_pretrained(output_dir)

    def save_merged(self, output_dir: str | None = None) -> None:
        """Saves a plain model with the adapter, if there is one, merged into its weights."""
        model, output_dir = self.plain_model(), output_dir or self.args.output_dir
        if self.args.should_save:
            fold_into_clip(model).save_pretrained(output_dir)
            self.processing_class.save_pretrained(output_dir)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
