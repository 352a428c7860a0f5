"""`PMGAFTTrainer`: adversarial fine-tuning of a dual encoder as a `transformers.Trainer`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, set_seed

from ..config import PMGAFTConfig, check_output_dir
from ..data.training_sets import training_examples
from ..engines import checkpoint_format, compile_blocks, prepare_for_engines
from ..evaluation.heads import Head
from ..fingerprints import fingerprint_without_adapter
from ..hub.card import save_model_card
from ..models.backbones import check_dual_encoder, unwrap, unwrap_peft
from ..objectives import Objective, make_objective
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_prompt_templates
from ..tuning import Tuning, fold_into_clip, keeps_weights
from ..tuning.base import attachment_of
from ..tuning.saved import load_tuning, save_weights
from . import checks, outputs
from .checkpoints import run_fingerprint
from .datasets import collator_for, examples_for
from .evaluating_trainer import EvaluatingTrainer
from .learned import add_learned
from .preparation import prepare_model, prepare_teacher, prepare_tuning
from .record import training_record
from .step import SIGN_AGREEMENT, AdversarialStep
from .streams import check_stream
from .teacher import Teacher
from .texts import Texts, encode_heads


class PMGAFTTrainer(EvaluatingTrainer):
    """Trains a CLIP whose zero-shot predictions withstand adversarial images.

    Args:
        model (dual encoder or `str`): The model to tune, or its name or folder: any class of
            `hf_pmgaft.models.BACKBONES`; for objectives without text also an image encoder alone, of `ENCODERS`. It is
            trained in place and in float32: weights in another dtype are converted first, which a log line says.
        args (`PMGAFTConfig`, *optional*): Threat model, objective and everything of `TrainingArguments`.
        train_dataset (*optional*): Rows with an image and a label column, or with processor-made `pixel_values` and
            `labels`; map-style or streaming.
        eval_dataset (*optional*): A labelled image set, a `ZeroShotDataset` or a `RetrievalDataset`; a dict of them,
            whose keys name the metrics; or a list of ready ones.
        processing_class (`CLIPProcessor`, *optional*): Loaded with the model if that is a name.
        teacher (dual encoder or `str`, *optional*): The frozen guide; the model itself before training if not given.
            For objectives without text any image encoder whose embeddings have the model's width.
        class_names (`list[str]`, *optional*): One per training label; those of the set's `ClassLabel` if not given.
        prompt_templates (`str` or `list[str]`): How class names become prompts.
        guidance_names (`list[str]`, *optional*): Names that the guidance terms range over instead of the classes.
        objective (`str` or `Objective`, *optional*): Overrides that of `args`.
        tuning (`str` or `Tuning`, *optional*): Overrides that of `args`. Where it keeps the model's weights (adapters,
            prompts), the teacher is the model with the tuning off.
        peft_config (`peft.PeftConfig`, *optional*): The tuning `PeftAdapter(peft_config)`: an adapter in the vision
            tower.
        teacher_processor (*optional*): Has the pixel statistics of the teacher, if they differ from the model's.
        head (`Head`, *optional*): Classifies in evaluation instead of the class names; see `evaluate_robustness`.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.
        data_collator, compute_metrics, callbacks, optimizers: As in `Trainer`. `compute_metrics` receives the clean
            logits and the labels of each evaluation set.

    Example:
        >>> import copy
        >>> from hf_pmgaft import PMGAFTConfig
        >>> args = PMGAFTConfig(output_dir="clip", eps="8/255", max_steps=1, use_cpu=True, disable_tqdm=True)
        >>> trainer = PMGAFTTrainer(copy.deepcopy(model), args, train_dataset=dataset, processing_class=processor)
        >>> trainer.train()
        {...}
        TrainOutput(global_step=1, ...)
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | os.PathLike,
        args: PMGAFTConfig | None = None,
        data_collator: Callable | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list | None = None,
        optimizers: tuple = (None, None),
        *,
        teacher: PreTrainedModel | nn.Module | str | os.PathLike | None = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        guidance_names: Sequence[str] | None = None,
        objective: str | Objective | None = None,
        tuning: str | Tuning | None = None,
        peft_config: Any = None,
        teacher_processor: Any = None,
        head: Head | None = None,
        accept_any_class_names: bool = False,
    ):
        args = PMGAFTConfig(output_dir="trainer_output") if args is None else args
        check_output_dir(args.output_dir)

        # Model and processor
        model, processing_class, self.backbone = prepare_model(model, processing_class)
        self._base_name = getattr(model, "name_or_path", "") or None
        base_model = self._base_name or f"a {type(unwrap_peft(model)).__name__}"
        self._card_facts = {"base_model": base_model, "dataset_name": None}

        # Method: which loss
        self.objective = make_objective(objective or args.objective, None if objective else args.objective_kwargs)
        checks.check_text(self.objective, model, bool(eval_dataset), head is not None)

        # Data and its texts
        examples = examples_for(
            self.objective, train_dataset, processing_class, class_names, args, accept_any_class_names
        )
        check_stream(examples, args)
        self.texts = Texts(
            processing_class,
            checks.training_class_names(class_names, examples, self.objective, accept_any_class_names),
            check_prompt_templates(prompt_templates),
            checks.checked_guidance_names(guidance_names, accept_any_class_names),
            self.objective.non_class_template,
        )

        # Teacher. Weights are told apart as they come, before engines and adapters touch them.
        teacher = prepare_teacher(teacher, model, self.objective)
        self._weights = {"model": fingerprint_without_adapter(model)}
        if teacher is not None:
            self._weights["teacher"] = fingerprint_without_adapter(teacher)
        prepare_for_engines(unwrap_peft(model))

        # What is trained. The seed comes first: adapters and prompts draw their first weights.
        set_seed(args.seed)
        self._starts_anew = attachment_of(model) is None
        self.tuning, model = prepare_tuning(
            model, tuning or args.tuning, None if tuning else args.tuning_kwargs, peft_config, self.texts
        )
        checks.check_pair(self.objective, self.tuning, model, args)
        # The teacher is copied before the engine may split the weights, and before the objective's own are added.
        self.teacher = Teacher.of(teacher, model)
        add_learned(unwrap_peft(model), self.objective.parameters())

        super().__init__(
            model,
            args,
            head=head,
            prompt_templates=self.texts.prompt_templates,
            accept_any_class_names=accept_any_class_names,
            data_collator=collator_for(self.objective, data_collator, examples, processing_class, self.class_names),
            train_dataset=examples,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.teacher.to(self.args.device)
        self.teacher.autocast = self.accelerator.autocast

        # The step, with its texts encoded once, by the model as it came
        with self.evaluation_model() as plain:
            heads = encode_heads(self.objective, self.texts, plain, teacher, teacher_processor, args.device)
        self.step = AdversarialStep(
            self.objective,
            self.texts,
            heads,
            self.teacher,
            self.model,
            attack=args.attack,
            attack_options=args.attack_options(),
            attack_precision=args.attack_precision,
            augmentation=args.augmentation,
            noise_sigma=args.noise_sigma,
            seed=args.seed,
        )
        if args.torch_compile:
            compile_blocks(unwrap(self.model).get_submodule(self.backbone.vision_layers), args, self.accelerator)

    # ---- Set-up ----

    @property
    def class_names(self) -> list[str] | None:
        """The training classes, by label."""
        return self.texts.class_names

    @property
    def class_embeds(self) -> torch.Tensor:
        """Text embeddings of the training classes before training, `[K,D]`, unit norm."""
        return self.step.student_head.class_embeds

    # ---- Training ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attacks the batch and returns the objective's weighted sum of terms; the terms go to the logs by name."""
        result = self.step(
            model,
            inputs,
            self.state.global_step,
            epoch=self.epoch,
            compare_signs=SIGN_AGREEMENT not in self.means,
            accumulated=self.current_gradient_accumulation_steps,
        )
        self.means.add(result.means, count=len(inputs["labels"]))
        self.means.note_finite([result.loss.detach()])
        return (result.loss, {"logits": result.logits}) if return_outputs else result.loss

    # ---- Evaluation ----

    def as_evaluated(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Prompts and adapters as they serve; switched off as long as they are as random as they began."""
        attached = attachment_of(model)
        if attached is None:
            return contextlib.nullcontext()
        return attached.off() if self._is_untouched else attached.as_at_test()

    @property
    def _is_untouched(self) -> bool:
        """Whether what the tuning added has not been trained yet."""
        return self._starts_anew and self.state.global_step == 0

    def predict(self, test_dataset, ignore_keys=None, metric_key_prefix="test"):
        """Clean logits over the training classes, as `Trainer.predict` returns them.

        Raises:
            TypeError: for a model without a text tower.
        """
        check_dual_encoder(self.model)
        test_dataset = training_examples(
            test_dataset, self.processing_class, self.class_names, accept_any_class_names=True
        )
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Clean loss, logits over the training classes, and labels of one batch, in float32."""
        inputs = self._prepare_inputs(inputs)
        with self.evaluation_model() as plain:
            classifier = self.step.student(plain)
            if not self._is_untouched:
                classifier = classifier.replace(**self.step.live_texts(plain))
            pixel_values = classifier.at_model_size(inputs["pixel_values"].float())
            logits = classifier.logits(classifier.encode_image(pixel_values))
        loss = F.cross_entropy(logits, inputs["labels"])
        return (loss, None, None) if prediction_loss_only else (loss, logits, inputs["labels"])

    # ---- What a checkpoint holds ----

    def fingerprint(self) -> dict[str, Any]:
        """What a run must share with another for one to resume the other's checkpoints."""
        model = self.unsharded_model
        return {
            **run_fingerprint(self.args, self.objective, self.tuning, self.texts, model, self.train_dataset),
            "weights": {"teacher": "the model before training", **self._weights},
            "engine": checkpoint_format(self.accelerator),
        }

    def save_weights(self, model: nn.Module, folder: Path) -> None:
        """Writes a plain model, an adapter, or what another tuning added."""
        save_weights(model, folder, self._base_name)

    def load_weights(self, folder: Path) -> bool:
        """Reads back what a tuning added beside the weights, which Trainer does not know."""
        if attachment_of(self.model) is None:
            return False
        load_tuning(self.model, folder)
        return True

    def config_to_save(self) -> dict[str, Any]:
        """The run's configuration, with the image size at which an adapter's base is read, what it trains on, and
        where model and data are from."""
        config = super().config_to_save() | {"image_size": self.backbone.image_size(unwrap(self.model))}
        config["training"] = self.training_record()
        return config | {"provenance": self.provenance} if self.provenance else config

    def training_record(self) -> dict[str, Any]:
        """What the run trains on and by which budget, as `training_config.json`, reports and card have it."""
        num_text_tokens = getattr(attachment_of(self.model), "num_text_tokens", 0)
        return training_record(self.args, self.texts, self.train_dataset, num_text_tokens)

    def extra_state(self) -> dict[str, torch.Tensor]:
        """What objective and attack carry on."""
        return self.step.state(self.model)

    def load_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Takes back the objective's own parameters."""
        self.step.load_objective(self.model, state)

    def load_attack_state(self, state: dict[str, torch.Tensor]) -> None:
        """Takes back the perturbation that all images share, if the attack has one."""
        self.step.load_attack(state)

    # ---- What is written beside it ----

    def create_model_card(self, finetuned_from=None, dataset=None, license=None, folder=None, **unused) -> None:
        """Writes the card with the reports made so far and the pictures beside it; `push_to_hub` calls this too."""
        if not self.is_world_process_zero():
            return
        facts = self._card_facts
        facts["base_model"] = finetuned_from or facts["base_model"]
        facts["dataset_name"] = dataset or facts["dataset_name"]
        folder = Path(folder or self.args.output_dir)
        save_model_card(
            folder,
            **facts,
            objective=self.objective,
            tuning=self.tuning,
            config=self.args,
            report_before=self.first_report,
            report_after=self.last_report,
            report_final=self.final_report,
            plots=outputs.drawn_pictures(folder, was_evaluated=self.last_report is not None),
            licence=license,
            train_dataset=self.train_dataset,
            training=self.training_record(),
            model_class=type(unwrap(self.unsharded_model)).__name__,
        )

    def save_standalone(self, output_dir: str | None = None) -> None:
        """Saves, beside an adapter or prompts, what serves without them: the merged model in `merged`, or the class
        embeddings of the training classes in `class_embeds.safetensors`. Nothing where the model is a plain one."""
        folder = Path(output_dir or self.args.output_dir)
        if not keeps_weights(self.model):
            return
        if outputs.merges(self.model):
            self.save_merged(str(folder / "merged"))
        elif self.class_names:
            with self.evaluation_model() as model:
                if self.args.should_save:
                    outputs.save_class_embeds(model, self.texts, folder)

    def save_merged(self, output_dir: str | None = None) -> None:
        """Saves a plain model with the adapter, if there is one, merged into its weights."""
        with self.averaged_weights():
            model = self.plain_model()
            if self.args.should_save:
                self.write_model(fold_into_clip(model), Path(output_dir or self.args.output_dir))

    def check_merges(self) -> None:
        """Raises `ValueError` if what is trained cannot become a plain model."""
        outputs.check_merges(unwrap(self.model))

    def push_to_hub(self, *args, merged=False, **kwargs):
        """Uploads as [`HubTrainer.push_to_hub`] does, and warns of an adapter whose base only this machine has."""
        if not merged and keeps_weights(self.model):
            outputs.warn_of_local_base(self._base_name)
        return super().push_to_hub(*args, merged=merged, **kwargs)
