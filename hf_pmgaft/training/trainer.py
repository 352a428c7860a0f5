"""`PMGAFTTrainer`: adversarial fine-tuning of a dual encoder as a `transformers.Trainer`."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import IterableDataset
from transformers import AutoProcessor, EvalPrediction, PreTrainedModel, Trainer, set_seed
from transformers.trainer_utils import speed_metrics

from ..attacks.losses import input_gradient, make_loss
from ..attacks.shared_perturbation import SharedPerturbation
from ..attacks.spec import training_attack
from ..config import PMGAFTConfig, check_output_dir
from ..data import Collator, EvaluationImages, ZeroShotDataset, augment, stack, training_examples
from ..data.collator import choose_captions
from ..engines import compile_blocks, copy_trained, load_whole_models, prepare_for_engines, show_trained
from ..evaluation.evaluate import evaluate_robustness
from ..evaluation.heads import Head
from ..evaluation.report import RobustnessReport
from ..fingerprints import fingerprint_without_adapter
from ..hub.upload import Pushing
from ..models.backbones import check_patches, get_backbone, get_encoder, unwrap, unwrap_peft
from ..models.processors import padding_id, pixel_statistics
from ..modes import attack_context, frozen, full_precision
from ..noise import sample_seeds
from ..objectives import make_objective
from ..objectives.base import Objective
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates
from ..tuning import keeps_weights, make_tuning, name_of, text_is_live, without_tuning
from ..tuning.base import Tuning, attachment
from ..tuning.peft_adapter import PeftAdapter, has_adapter
from ..tuning.saved import load_model
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, encode_class_names
from ..zero_shot.views import Views
from . import checkpoints
from .averaging import WeightAverage
from .callbacks import SamplePictures, classified
from .saving import Saving


class PMGAFTTrainer(Saving, Pushing, Trainer):
    """Trains a CLIP whose zero-shot predictions withstand adversarial images.

    Args:
        model (dual encoder or `str`): The model to tune, or its name or folder: any class of
            `hf_pmgaft.models.BACKBONES`; for objectives without text also an image encoder alone, of `ENCODERS`.
        args (`PMGAFTConfig`, *optional*): Threat model, objective and everything of `TrainingArguments`.
        train_dataset (*optional*): Rows with an image and a label column, or with processor-made `pixel_values` and
            `labels`; map-style or streaming.
        eval_dataset (*optional*): A labelled image set, a `ZeroShotDataset` or a `RetrievalDataset`, or a dict of
            them.
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
        tuning: str | Tuning | None = None,
        peft_config: Any = None,
        teacher_processor: Any = None,
        head: Head | None = None,
    ):
        args = PMGAFTConfig(output_dir="trainer_output") if args is None else args
        check_output_dir(args.output_dir)
        if isinstance(model, str):
            processing_class = processing_class or AutoProcessor.from_pretrained(model, trust_remote_code=False)
            model = load_model(model)
        self.backbone = get_encoder(model)
        if processing_class is None:
            raise ValueError(
                "You passed a model object without its processor, so neither prompts nor pixels can be made. Pass "
                "`processing_class=CLIPProcessor.from_pretrained(...)`."
            )
        pixel_statistics(processing_class)
        self._base_name = getattr(model, "name_or_path", "") or None
        self._base_model, self._dataset_name = self._base_name or f"a {type(unwrap_peft(model)).__name__}", None
        self.objective = make_objective(objective or args.objective, None if objective else args.objective_kwargs)
        self.head, self._teacher_processor = head, teacher_processor or processing_class
        self._check_text(model, eval_dataset)
        self.prompt_templates = check_prompt_templates(prompt_templates)
        self.guidance_names = None if guidance_names is None else check_class_names(guidance_names)
        if train_dataset is not None:
            captions = "auto" if self.objective.uses_captions else None
            options = {"caption_column": captions, "needs_labels": self.objective.uses_text}
            train_dataset = training_examples(train_dataset, processing_class, class_names, **options)
            if captions and isinstance(train_dataset, IterableDataset):
                # Accelerate would join the processes' batches, whose captions differ in length, and deal them out.
                args.accelerator_config.dispatch_batches = False
        self.class_names = self._class_names(class_names, train_dataset)
        self._user_teacher = self._check_teacher(teacher, model)
        self._weights = {"model": fingerprint_without_adapter(model)}
        if self._user_teacher is not None:
            self._weights["teacher"] = fingerprint_without_adapter(self._user_teacher)
        prepare_for_engines(unwrap_peft(model))
        set_seed(args.seed)  # before adapters and prompts draw their first weights
        self.tuning, model = self._tune(model, tuning, peft_config, args)
        # The teacher is the model as it comes; where the tuning keeps its weights, these with the tuning off.
        if self._user_teacher is not None:
            self._teacher = get_encoder(self._user_teacher).vision_copy(self._user_teacher)
        else:
            self._teacher = None if keeps_weights(model) else self.backbone.vision_copy(model)
        self._text_is_live = text_is_live(model)
        self._check_pair(model, args)
        learned = {name: Learned(value) for name, value in self.objective.parameters().items()}
        if learned:
            unwrap_peft(model).objective = nn.ModuleDict(learned)
        collator = None
        if train_dataset is not None:
            count = self.class_names and len(self.class_names)
            collator = Collator(processing_class, count, data_collator, self.objective.uses_text)
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
        self._shown: nn.Module | None = None
        self._newest_checkpoint: Path | None = None
        args.enable_jit_checkpoint = stop_on_sigterm
        self._sigterm = checkpoints.StopOnSigterm()
        if stop_on_sigterm:
            self.add_callback(self._sigterm)
        self._training_attack, self._attack_options = training_attack(args.attack, args.attack_options())
        self._average = WeightAverage(self.model, args.ema_decay, args.wise_ft) if args.averages_weights else None
        if self._average is not None:
            self.add_callback(self._average)
        if self.args.report_to:
            # trackio ends its run with training; an evaluation after it goes on with the run by its name.
            run = f"{Path(self.args.output_dir).resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
            self.args.run_name = self.args.run_name or run
            if classified(self.eval_dataset):
                self.add_callback(SamplePictures(self))
        load_whole_models()
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        self._plain = copy.deepcopy(self.model) if sharded else None
        with self.evaluation_model() as plain:
            self._encode_texts(plain)
        self._prompts = self._live_prompts()
        if args.torch_compile:
            compile_blocks(unwrap(self.model).get_submodule(self.backbone.vision_layers), args, self.accelerator)

    # ---- Set-up ----

    def _class_names(self, given: Sequence[str] | None, dataset: Any) -> list[str] | None:
        if given is not None:
            return check_class_names(given)
        names = getattr(dataset, "class_names", None)
        optional = self.objective.uses_captions or not self.objective.uses_text
        if names is None and dataset is not None and not optional:
            raise ValueError(
                "The training set holds `pixel_values` but no class names, so no prompt can be made. Pass "
                "`class_names`, one name per label."
            )
        return names

    def _tune(
        self, model: nn.Module, tuning: str | Tuning | None, peft_config: Any, args: PMGAFTConfig
    ) -> tuple[Tuning, nn.Module]:
        """The tuning, and the model prepared for it: frozen but for what is trained."""
        tuning = make_tuning(tuning or args.tuning, None if tuning else args.tuning_kwargs)
        if peft_config is not None or has_adapter(model):
            if name_of(tuning) not in ("vision_tower", "peft"):
                raise ValueError(
                    f"You passed an adapter and tuning={name_of(tuning)!r}, which trains something else. Pass one of "
                    "them; `layers_to_transform` of the peft config chooses blocks."
                )
            if peft_config is not None or not isinstance(tuning, PeftAdapter):
                tuning = PeftAdapter(peft_config)
        added = attachment(unwrap_peft(model))
        self._added_anew = added is None
        if added is None:
            model = tuning.for_classes(self.class_names).prepare(model)
            added = attachment(unwrap_peft(model))
        else:  # of an earlier run, which goes on
            tuning = added.options
            model.requires_grad_(False)
            added.requires_grad_(True)
        if added is not None:
            added.at_test = False
        return tuning, model

    def _check_pair(self, model: nn.Module, args: PMGAFTConfig) -> None:
        """Raises `ValueError` for what cannot go together, before anything is computed."""
        objective, tuning = type(self.objective).__name__, name_of(self.tuning)
        added = attachment(unwrap_peft(model))
        if self._text_is_live and not self.objective.uses_text:
            raise ValueError(
                f"You passed objective {objective} with tuning {tuning!r}, which learns on the text side, where the "
                "objective sends no gradient. Choose a tuning of the vision tower, or an objective with text."
            )
        if self.objective.uses_captions and added is not None and not added.takes_captions:
            raise ValueError(
                f"You passed objective {objective}, which reads captions, with tuning {tuning!r}, whose prompts have "
                "places for class names alone. Choose another tuning, or an objective over classes."
            )
        if self.objective.uses_patches:
            check_patches(self.backbone, unwrap_peft(model))
        if self.objective.steers_attack and (args.attack_kwargs or {}).get("tau") is not None:
            raise ValueError(
                f"You passed tau in attack_kwargs with objective {objective}, whose attack maximises a loss of its "
                "own, without logits that would say when to stop. Leave tau out, or choose pmg_aft or tecoa."
            )
        if args.wise_ft is not None and keeps_weights(model):
            raise ValueError(
                f"You passed wise_ft with tuning {tuning!r}, which adds to the original weights and leaves them, so "
                "that there is nothing to mix. Leave wise_ft out, or tune 'vision_tower' or 'last_blocks'."
            )
        if args.torch_compile and self.backbone.vision_layers is None:
            raise ValueError(
                f"You passed torch_compile with a {type(unwrap_peft(model)).__name__}, whose vision tower may be of "
                "any kind, so its blocks, which would be compiled, are not known. Leave torch_compile out."
            )

    def _check_text(self, model: nn.Module, eval_dataset: Any) -> None:
        """Raises `ValueError` for a model without a text tower where one is needed."""
        if self.backbone.text_modules:
            return
        kind, objective = type(unwrap_peft(model)).__name__, type(self.objective).__name__
        if self.objective.uses_text:
            raise ValueError(
                f"You passed objective {objective} with a {kind}, which has no text tower to compare images with. "
                "Pass an objective of image features alone (fare, sim_clip), or a dual encoder."
            )
        if eval_dataset and self.head is None:
            raise ValueError(
                f"You passed eval_dataset with a {kind}, which has no text tower to classify by. Pass `head`, such as "
                "NearestClassMean(support)."
            )

    def _check_teacher(self, teacher: Any, model: nn.Module) -> nn.Module | None:
        if teacher is None:
            return None
        if isinstance(teacher, str):
            teacher = load_model(teacher)
        (get_backbone if self.objective.uses_text else get_encoder)(teacher)
        if teacher is model or unwrap_peft(teacher) is unwrap_peft(model):
            raise ValueError(
                "You passed the model itself as its teacher, so the teacher would change while it guides. Leave "
                "`teacher` out (a frozen copy is made), or pass another object."
            )
        if self.objective.uses_patches:
            check_patches(get_backbone(teacher), unwrap_peft(teacher))
        rows = [(get_encoder(part), unwrap_peft(part)) for part in (model, teacher)]
        shapes = [(row.image_size(part), row.width(part.config)) for row, part in rows]
        if not self.objective.uses_text:
            if shapes[0][1] != shapes[1][1]:
                raise ValueError(
                    f"The embeddings of the teacher, a {type(rows[1][1]).__name__}, have {shapes[1][1]} dimensions, "
                    f"the model's {shapes[0][1]}, so there is no distance between them. Pass a teacher of the model's "
                    "width."
                )
        elif shapes[0] != shapes[1]:
            raise ValueError(
                f"The teacher's image size and embedding width are {shapes[1]}, the model's {shapes[0]}; their "
                "predictions on the same pixels cannot be compared. Pass a teacher of the model's shape."
            )
        return teacher

    def _zero_shot_sets(self, datasets: Any, processor: Any) -> dict[str, EvaluationImages] | None:
        if datasets is None or isinstance(datasets, dict) and not datasets:
            return None
        named = datasets if isinstance(datasets, dict) else {getattr(datasets, "name", "set"): datasets}
        sets = {}
        for name, data in named.items():
            if not isinstance(data, EvaluationImages):
                data = ZeroShotDataset(data, processor, prompt_templates=self.prompt_templates, name=name)
            sets[name] = data
        return sets

    @torch.no_grad()
    def _encode_texts(self, model: nn.Module) -> None:
        """Encodes the class prompts once, for student and teacher, by the model as it came."""
        names, guidance, denied = self.class_names, self.guidance_names, self.objective.non_class_template

        def head(source: nn.Module, processor: Any, with_text: bool) -> ZeroShotClassifier:
            def encode(names: Sequence[str] | None, templates: Sequence[str]) -> torch.Tensor | None:
                if names is None or not with_text:
                    return None
                return encode_class_names(source, self.processing_class, names, templates).to(self.args.device)

            none = torch.zeros(0, self.backbone.width(unwrap_peft(model).config), device=self.args.device)
            texts = encode(names, self.prompt_templates)
            classifier = ZeroShotClassifier.from_model(
                source,
                processor,
                none if texts is None else texts,
                logit_scale=self.objective.logit_scale,
                guidance_embeds=encode(guidance, self.prompt_templates),
            )
            return classifier.replace(non_class_embeds=encode(denied and names, [denied or ""]))

        with without_tuning(model) if keeps_weights(model) else contextlib.nullcontext():
            own = head(model, self.processing_class, with_text=bool(self.backbone.text_modules))
            self._student_head = self._teacher_head = own
        if self._user_teacher is not None:
            self._teacher_head = head(self._user_teacher, self._teacher_processor, self.objective.uses_text)
            self._user_teacher = None  # its image tower was copied, its text tower has done its work

    def _live_prompts(self) -> dict[str, ClassPrompts]:
        """The class prompts that are encoded anew in each step, with their places for what is learned."""
        if not self._text_is_live or self.objective.uses_captions:
            return {}
        lists = {"class_embeds": self.class_names, "guidance_embeds": self.guidance_names}
        return {
            key: ClassPrompts.of(self.model, self.processing_class, names, self.prompt_templates).to(self.args.device)
            for key, names in lists.items()
            if names is not None
        }

    @property
    def class_embeds(self) -> torch.Tensor:
        """Text embeddings of the training classes before training, `[K,D]`, unit norm."""
        return self._student_head.class_embeds

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
        """The plain model in eval mode and float32, frozen, on this process's device; afterwards as it was.

        Before the first step it is the model as it came, without the random prompts or adapters that training begins
        with.
        """
        try:
            with self._averaged():
                model = self.plain_model()
                # Verdicts are of the plain arithmetic, whatever the passes of training were compiled to.
                plain = torch.compiler.set_stance("force_eager")
                with plain, full_precision(model), frozen(model), self._as_used(model):
                    yield model.to(self.args.device)
        finally:
            if self._plain is not None:
                self._plain.cpu()

    def _as_used(self, model: nn.Module) -> contextlib.AbstractContextManager:
        added = attachment(unwrap_peft(model))
        if added is None:
            return contextlib.nullcontext()
        return added.off() if self._untouched else added.as_at_test()

    @property
    def _untouched(self) -> bool:
        """Whether what the tuning added has not been trained yet."""
        return self._added_anew and self.state.global_step == 0

    def _averaged(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._average is None else self._average.applied()

    # ---- One step ----

    def student(self, model: nn.Module, head: ZeroShotClassifier | None = None) -> ZeroShotClassifier:
        """The training classifier around `model`, wrapped or not, at the objective's logit scale; texts as in `head`,
        those before training if not given."""
        return (head or self._student_head).by(
            lambda pixel_values: self.backbone.image_embeds(model, pixel_values),
            lambda pixel_values: self.backbone.image_and_patch_embeds(model, pixel_values),
        )

    def teacher(self) -> ZeroShotClassifier:
        """The frozen guide as a classifier; its passes keep no graph."""
        return self._teacher_head.by(self._encode_by_teacher, partial(self._encode_by_teacher, patches=True))

    @torch.no_grad()
    def _encode_by_teacher(self, pixel_values: torch.Tensor, patches: bool = False):
        # The attack may ask in a precision of its own; the loss gets what it kept.
        own = torch.autocast(self.args.device.type, enabled=False)
        if self._teacher is not None:
            with own, self.accelerator.autocast():
                return self._teacher.with_patches(pixel_values) if patches else self._teacher(pixel_values)
        model = self.accelerator.unwrap_model(self.model)
        with own, without_tuning(model):
            encode = self.backbone.image_and_patch_embeds if patches else self.backbone.image_embeds
            return encode(model, pixel_values)

    def _live_texts(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Class embeddings as the text side that is trained makes them now, with their graph."""
        return {name: prompts.embed(model) for name, prompts in self._prompts.items()}

    def _captions(self, model: nn.Module, inputs: dict[str, torch.Tensor], seeds: torch.Tensor) -> tuple:
        """The embeddings of one caption per image, `[B,D]`, unit norm, for student and teacher."""
        if "input_ids" not in inputs:
            raise ValueError(
                f"The objective {type(self.objective).__name__} pairs images with captions, but the batch holds only "
                f"{sorted(inputs)}. Pass rows with `input_ids`, or a set with a caption column."
            )
        tokens = choose_captions(inputs, seeds)

        def embed(model: nn.Module) -> torch.Tensor:
            texts = self.backbone.full_length(model, *tokens, padding_id(self.processing_class))
            return F.normalize(self.backbone.text_embeds(model, *texts).float(), dim=-1)

        with torch.set_grad_enabled(self._text_is_live):
            own = embed(model)
        if not self._text_is_live:
            return own, own
        plain = self.accelerator.unwrap_model(self.model)
        with torch.no_grad(), without_tuning(plain):
            return own, embed(plain)

    def _learned(self) -> dict[str, torch.Tensor]:
        """The objective's own parameters."""
        model = unwrap(self.model)
        return {name: module() for name, module in getattr(model, "objective", {}).items()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attacks the batch and returns the objective's weighted sum of terms; the terms go to the logs by name."""
        labels = inputs["labels"]
        seeds = sample_seeds(self.args.seed, self.state.global_step, inputs["sample_id"])
        plain = unwrap(self.model)
        if (added := attachment(plain)) is not None:
            added.draw(self.args.seed, self.state.global_step)
        classifier = self.student(model).replace(learned=self._learned(), **self._live_texts(model))
        teacher = self.teacher()
        if self.objective.uses_captions:
            own, frozen_ones = self._captions(model, inputs, seeds)
            classifier = classifier.replace(caption_embeds=own)
            teacher = teacher.replace(caption_embeds=frozen_ones)
        images = inputs["pixel_values"].float() * classifier.std + classifier.mean
        images = augment(images.clamp(0, 1), seeds, self.args.augmentation)
        teacher = Views(teacher, images)
        adversarial = self._attack(images, labels, seeds, classifier, teacher)
        student = Views(classifier, images, adversarial)
        teacher = teacher.on(adversarial)
        terms = self.objective.loss(student, teacher, labels)
        weights = self.objective.weights
        loss = sum(weights[name] * term for name, term in terms.items())
        self._note(terms, student, teacher, labels)
        self._finite = self._finite * torch.isfinite(loss.detach())
        if return_outputs:
            return loss, {"logits": student.adversarial_logits if self.objective.uses_attack else student.clean_logits}
        return loss

    def _attack(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        classifier: ZeroShotClassifier,
        teacher: Views,
    ) -> torch.Tensor | None:
        """Adversarial images against the student; `None` for an objective without attack."""
        if not self.objective.uses_attack:
            return None
        # The inner module: DeepSpeed's engine counts a backward for every pass through it. It runs in eval mode and
        # with its parameters frozen, so nothing of the attack reaches their gradients; texts are constants.
        inner = self.accelerator.unwrap_model(self.model)
        own = self.student(inner, classifier.detached())
        if self._shown is not inner:  # the engine has just made it
            show_trained(inner, lambda: own.embed(images[:1]))
            self._shown = inner
        loss_fn = self.objective.attack_loss(own, teacher, labels)
        precision = self.args.attack_precision
        if isinstance(self._training_attack, SharedPerturbation):
            self._training_attack.begin(int(self.state.epoch or 0))
        options = self._attack_options
        with frozen(inner):
            with attack_context(inner, precision):
                adversarial = self._training_attack(own, images, labels, loss_fn=loss_fn, seeds=seeds, **options)
            if precision == "bf16" and "attack_sign_agreement" not in self._sums:  # once for each log line
                loss_fn = loss_fn or make_loss(own, images, labels, options.get("loss", "ce"))
                signs = []
                for precision in ("bf16", "fp32"):
                    with attack_context(inner, precision):
                        signs.append(input_gradient(loss_fn, adversarial).sign())
                self._add("attack_sign_agreement", (signs[0] == signs[1]).float().mean(), len(labels))
        return adversarial

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
            self._add(name, value, len(labels))

    def _add(self, name: str, mean: torch.Tensor, count: int) -> None:
        entry = torch.stack([mean * count, mean.new_full((), count)])
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
                if not isinstance(data, ZeroShotDataset):
                    continue
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
                head=self.head,
            )
        if self.state.global_step == 0 and self.first_report is None:
            self.first_report = self.last_report
        return self.last_report

    def evaluation_classifier(self, model: nn.Module, data: ZeroShotDataset) -> ZeroShotClassifier:
        """What classifies the images of an evaluation set: its class names, or the head."""
        if self.head is not None:
            return self.head.fit(model, self.processing_class, data)
        embeds = encode_class_names(model, self.processing_class, data.class_names, data.prompt_templates)
        return ZeroShotClassifier.from_model(model, self.processing_class, embeds)

    @torch.no_grad()
    def _clean_predictions(self, data: ZeroShotDataset) -> EvalPrediction:
        logits, labels = [], []
        with self.evaluation_model() as model:
            classifier = self.evaluation_classifier(model, data)
            for start in range(0, len(data), self.args.eval_batch_size):
                rows = [data[i] for i in range(start, min(start + self.args.eval_batch_size, len(data)))]
                images = torch.stack([row["images"] for row in rows]).to(self.args.device)
                logits.append(classifier(images).cpu())
                labels += [row["labels"] for row in rows]
        return EvalPrediction(predictions=torch.cat(logits).numpy(), label_ids=torch.tensor(labels).numpy())

    def predict(self, test_dataset, ignore_keys=None, metric_key_prefix="test"):
        """Clean logits over the training classes, as `Trainer.predict` returns them.

        Raises:
            TypeError: for a model without a text tower.
        """
        get_backbone(unwrap(self.model))
        test_dataset = training_examples(test_dataset, self.processing_class, self.class_names)
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Clean loss, logits over the training classes, and labels of one batch, in float32."""
        inputs = self._prepare_inputs(inputs)
        with self.evaluation_model() as plain:
            classifier = self.student(plain).replace(**{} if self._untouched else self._live_texts(plain))
            logits = classifier.logits(classifier.encode_image(inputs["pixel_values"].float()))
        loss = F.cross_entropy(logits, inputs["labels"])
        return (loss, None, None) if prediction_loss_only else (loss, logits, inputs["labels"])


class Learned(nn.Module):
    """A parameter of the objective, in a module of its own, through whose pass engines gather it."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self) -> torch.Tensor:
        value = self.value.full_tensor() if isinstance(self.value, DTensor) else self.value
        return value.view_as(value)
