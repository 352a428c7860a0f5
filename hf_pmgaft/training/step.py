"""One step of adversarial training: batch -> attack -> views -> terms -> loss. All of it is in this file.

The step needs a plain model alone, and serves in a loop of one's own; the trainer calls the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch import nn

from ..attacks.inputs import known_values
from ..attacks.losses import input_gradient, make_loss
from ..attacks.options import training_attack
from ..attacks.shared_perturbation import SharedPerturbation
from ..config_checks import check_noise
from ..data.augmentation import augment
from ..data.collator import choose_captions
from ..defences import Smoothing
from ..distributed import process_share
from ..engines import prepare_for_engines, show_trained
from ..models.backbones import get_encoder, unwrap, unwrap_peft
from ..models.processors import padding_id
from ..modes import attack_context, frozen
from ..noise import sample_seeds
from ..objectives import Objective, make_objective
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_prompt_templates
from ..tuning import Tuning, text_is_live, without_tuning
from ..tuning.base import attachment_of
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts
from ..zero_shot.views import Views
from .checks import training_class_names
from .learned import learned_by_objective
from .preparation import prepare_tuning, train_in_float32
from .teacher import Teacher
from .texts import Texts, encode_heads

SIGN_AGREEMENT = "attack_sign_agreement"


@dataclass
class StepResult:
    """What one step computed.

    Attributes:
        loss (`torch.Tensor`): The weighted sum of the terms, a scalar with a gradient.
        means (`dict[str, torch.Tensor]`): For the logs, without gradients: the unweighted terms, and accuracies of the
            logits that were computed anyway.
        student (`Views`), teacher (`Views`): What each made of the batch.
    """

    loss: torch.Tensor
    means: dict[str, torch.Tensor]
    student: Views
    teacher: Views

    @property
    def logits(self) -> torch.Tensor:
        """The student's logits of the adversarial images `[B,K]`; of the clean ones where none were made."""
        return self.student.clean_logits if self.student.adversarial is None else self.student.adversarial_logits


class AdversarialStep:
    """Attacks a batch, and computes an objective's loss on it.

    Args:
        objective (`Objective`): Which terms, and what the attack maximises.
        texts (`Texts`): What images are compared with.
        heads (`tuple[ZeroShotClassifier, ZeroShotClassifier]`): The texts as student and teacher encoded them before
            training, see [`encode_heads`].
        teacher (`Teacher`): The frozen guide.
        model (`nn.Module`): The student, prepared for its tuning.
        attack (`str`): Name of the attack, see `hf_pmgaft.attacks.TRAINING_ATTACKS`.
        attack_options (`dict`): Radius, norm, steps and what else the attack takes.
        attack_precision (`str`): In what the attack computes, see [`PMGAFTConfig`].
        augmentation (`float`): Strength of the augmentation, 0 to 1.
        noise_sigma (`float` or `str`, *optional*): Standard deviation of normal noise on each image, for objectives
            without an attack; see [`PMGAFTConfig`].
        seed (`int`): All randomness of an image follows from it, the step and the image's `sample_id`.

    Example:
        >>> import copy
        >>> student = copy.deepcopy(model)
        >>> step = AdversarialStep.of(student, processor, class_names, objective="pmg_aft", eps="8/255", num_steps=2)
        >>> optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-4)
        >>> pixel_values = (images - step.student_head.mean) / step.student_head.std
        >>> batch = {"pixel_values": pixel_values, "labels": labels, "sample_id": torch.arange(len(labels))}
        >>> for number in range(3):
        ...     step(student, batch, number).loss.backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
    """

    def __init__(
        self,
        objective: Objective,
        texts: Texts,
        heads: tuple[ZeroShotClassifier, ZeroShotClassifier],
        teacher: Teacher,
        model: nn.Module,
        *,
        attack: str = "pgd",
        attack_options: Mapping[str, Any],
        attack_precision: str = "follow",
        augmentation: float = 0.0,
        noise_sigma: float | str | None = None,
        seed: int = 0,
    ):
        check_noise(noise_sigma, objective)
        self.objective = objective
        self.student_head, self.teacher_head = heads
        self.teacher = teacher
        self.teacher.student = model
        self.attack, self.attack_options = training_attack(attack, attack_options)
        self.attack_precision = attack_precision
        self.augmentation = augmentation
        self.noise = None if noise_sigma is None else Smoothing(None, sigma=noise_sigma)
        self.seed = seed
        self._pad_token_id = padding_id(texts.processor)
        self._shown: nn.Module | None = None

        # Prompts that are encoded anew in each step, where training changes what a text means
        self.text_is_live = text_is_live(model)
        self.live_prompts: dict[str, ClassPrompts] = {}
        if self.text_is_live and not objective.uses_captions:
            self.live_prompts = texts.live_prompts(model, self.student_head.device)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        processor: Any,
        class_names: Sequence[str] | None,
        *,
        objective: str | Objective = "pmg_aft",
        tuning: str | Tuning = "vision_tower",
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        attack: str = "pgd",
        seed: int = 0,
        augmentation: float = 0.0,
        noise_sigma: float | str | None = None,
        accept_any_class_names: bool = False,
        **attack_options: Any,
    ) -> AdversarialStep:
        """The step of a plain model in a loop of one's own; its teacher is a copy of the model as it is now.

        Args:
            model (dual encoder or PEFT model): Prepared in place: what is not tuned is frozen, and all is float32.
            processor (`CLIPProcessor`): Makes prompts and knows the pixel statistics.
            class_names (`list[str]`, *optional*): One per label; none for objectives without text.
            accept_any_class_names (`bool`): Whether names that a text tower cannot know are taken.
            attack_options: `eps`, `norm`, `num_steps`, ... of the attack.
        """
        train_in_float32(model)
        prepare_for_engines(unwrap_peft(model))
        objective = make_objective(objective)
        texts = Texts(
            processor,
            training_class_names(class_names, None, objective, accept_any_class_names),
            check_prompt_templates(prompt_templates),
            non_class_template=objective.non_class_template,
        )
        heads = encode_heads(objective, texts, model)

        _, model = prepare_tuning(model, tuning, None, None, texts)
        return cls(
            objective,
            texts,
            heads,
            Teacher.of(None, model),
            model,
            attack=attack,
            attack_options=attack_options,
            augmentation=augmentation,
            noise_sigma=noise_sigma,
            seed=seed,
        )

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, torch.Tensor],
        step: int,
        epoch: int = 0,
        compare_signs: bool = False,
        accumulated: int = 1,
    ) -> StepResult:
        """Attacks the batch and computes the loss; the caller goes backwards.

        Args:
            model: The model, whatever engine is around it. Gradient passes call it as it is given.
            batch (`dict`): `pixel_values` `[B,3,H,W]` as the processor makes them, `labels` `[B]` and `sample_id`
                `[B]`; with captions `input_ids`, `attention_mask` and `num_captions`, see [`Collator`].
            step (`int`), epoch (`int`): How many were before.
            compare_signs (`bool`): Whether the means tell, of an attack in bf16, the share of pixels where the
                gradient has the sign that it has in float32.
            accumulated (`int`): Of how many batches the caller averages the losses before the optimizer steps.
        """
        inner = extract_model_from_parallel(model)
        self.teacher.student = inner
        seeds = sample_seeds(self.seed, step, batch["sample_id"])
        if (tuning := attachment_of(model)) is not None:
            tuning.draw(self.seed, step)

        # Student and teacher; nothing is computed before it is asked for
        student = self.student(model).replace(learned=learned_by_objective(model), **self.live_texts(model))
        teacher = self.guide
        if self.objective.uses_captions:
            student_captions, teacher_captions = self._caption_embeds(model, inner, batch, seeds)
            student = student.replace(caption_embeds=student_captions)
            teacher = teacher.replace(caption_embeds=teacher_captions)

        # Images in [0,1], augmented by their own seeds; noise leads out of [0,1]
        images = batch["pixel_values"].float() * student.std + student.mean
        images = augment(images.clamp(0, 1), seeds, self.augmentation)
        if self.noise is not None:
            images = self.noise.purify(images, seeds)
        labels = batch["labels"]
        teacher_views = Views(teacher, images)

        # Adversarial images, against the bare student
        adversarial, agreement = None, {}
        if self.objective.uses_attack:
            adversarial, agreement = self.perturb(
                inner, student, images, labels, seeds, teacher_views, epoch, compare_signs
            )

        # Named terms and their weighted sum
        student_views = Views(student, images, adversarial)
        teacher_views = teacher_views.on(adversarial)
        terms = self.objective.loss(student_views, teacher_views, labels)
        batches = process_share()[1] * accumulated
        terms |= {name: batches * terms[name] for name in self.objective.sums & terms.keys()}
        weights = self.objective.weights
        loss = sum(weights[name] * term for name, term in terms.items())

        means = agreement | _means(terms, student_views, teacher_views, labels)
        return StepResult(loss, means, student_views, teacher_views)

    def state(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """What objective and attack carry on from step to step, for a checkpoint."""
        state = {f"objective.{name}": value for name, value in learned_by_objective(model).items()}
        if isinstance(self.attack, SharedPerturbation):
            state |= {f"attack.{name}": value for name, value in self.attack.state().items()}
        return state

    @torch.no_grad()
    def load_objective(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Gives the objective's own parameters the values of a `state`."""
        for name, value in learned_by_objective(model).items():
            value.copy_(state[f"objective.{name}"])

    def load_attack(self, state: Mapping[str, torch.Tensor]) -> None:
        """Gives an attack that all images share the perturbation of a `state`."""
        carried = {name.removeprefix("attack."): v for name, v in state.items() if name.startswith("attack.")}
        if carried and isinstance(self.attack, SharedPerturbation):
            self.attack.load(carried)

    def student(self, model: nn.Module, head: ZeroShotClassifier | None = None) -> ZeroShotClassifier:
        """The training classifier around `model`, wrapped or not, at the objective's logit scale.

        Its texts are those of `head`; those before training if it is not given.
        """
        backbone = get_encoder(unwrap(model))

        def encode_image(pixel_values: torch.Tensor) -> torch.Tensor:
            return backbone.image_embeds(model, pixel_values)

        def encode_patches(pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return backbone.image_and_patch_embeds(model, pixel_values)

        return (head or self.student_head).by(encode_image, encode_patches)

    @property
    def guide(self) -> ZeroShotClassifier:
        """The teacher with its texts; its passes keep no graph."""
        return self.teacher.classifier(self.teacher_head)

    def live_texts(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Class embeddings as the text side that is trained makes them now, with their graph."""
        return {name: prompts.embed(model) for name, prompts in self.live_prompts.items()}

    def perturb(
        self,
        inner: nn.Module,
        student: ZeroShotClassifier,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        teacher: Views,
        epoch: int = 0,
        compare_signs: bool = False,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Adversarial images `[B,3,H,W]`, and the agreement of gradient signs if it is asked for.

        The module inside its engine is attacked: DeepSpeed's engine counts a backward for every pass through it. It
        runs in eval mode and with its parameters frozen, so nothing of the attack reaches their gradients; texts are
        constants.
        """
        bare = self.student(inner, student.detached())
        if self._shown is not inner:  # the engine has just made it
            show_trained(inner, lambda: bare.embed(images[:1]))
            self._shown = inner
        if isinstance(self.attack, SharedPerturbation):
            self.attack.begin(epoch)

        loss_fn = self.objective.attack_loss(bare, teacher, labels)
        options = self.attack_options
        with frozen(inner), known_values():  # images are clamped above, and labels are the collator's
            with attack_context(inner, self.attack_precision):
                adversarial = self.attack(bare, images, labels, loss_fn=loss_fn, seeds=seeds, **options)
            if not (compare_signs and self.attack_precision == "bf16"):
                return adversarial, {}

            loss_fn = loss_fn or make_loss(bare, images, labels, options.get("loss", "ce"))
            signs = {}
            for precision in ("bf16", "fp32"):
                with attack_context(inner, precision):
                    signs[precision] = input_gradient(loss_fn, adversarial).sign()
            return adversarial, {SIGN_AGREEMENT: (signs["bf16"] == signs["fp32"]).float().mean()}

    def _caption_embeds(
        self, model: nn.Module, inner: nn.Module, batch: Mapping[str, torch.Tensor], seeds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of one caption per image, `[B,D]`, unit norm, by the student and by the teacher."""
        if "input_ids" not in batch:
            raise ValueError(
                f"The objective {type(self.objective).__name__} pairs images with captions, but the batch holds only "
                f"{sorted(batch)}. Pass rows with `input_ids`, or a set with a caption column."
            )
        tokens = choose_captions(batch, seeds)
        backbone = get_encoder(unwrap(model))

        def embed(model: nn.Module) -> torch.Tensor:
            ids, mask = backbone.full_length(model, *tokens, self._pad_token_id)
            return F.normalize(backbone.text_embeds(model, ids, mask).float(), dim=-1)

        with torch.set_grad_enabled(self.text_is_live):
            embeds = embed(model)
        if not self.text_is_live:
            return embeds, embeds
        with torch.no_grad(), without_tuning(inner):
            return embeds, embed(inner)


@torch.no_grad()
def _means(
    terms: Mapping[str, torch.Tensor], student: Views, teacher: Views, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The terms, and accuracies of the class logits that were computed anyway, each a mean over the batch."""
    means = {name: term.detach().float() for name, term in terms.items()}
    for prefix, views in (("", student), ("teacher_", teacher)):
        for view, logits in views.computed().items():
            if view in ("clean_logits", "adversarial_logits"):
                accuracy = (logits.argmax(1) == labels).float().mean()
                means[f"{prefix}{view.removesuffix('logits')}accuracy"] = accuracy
    return means
