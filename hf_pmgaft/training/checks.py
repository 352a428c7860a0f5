"""What cannot go together, said before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback

from ..config import PMGAFTConfig
from ..data.evaluation_sets import EvaluationImages, ZeroShotDataset
from ..evaluation.metric_names import metric_names
from ..models.backbones import check_patches, get_backbone, get_encoder, unwrap_peft
from ..models.processors import pixel_statistics
from ..objectives import Objective
from ..prompts import check_class_names, check_readable
from ..trainer_arguments import ROBUST_ACCURACY
from ..tuning import Tuning, keeps_weights, name_of, text_is_live
from ..tuning.base import attachment_of
from .streams import rows_per_batch

logger = logging.getLogger(__name__)


def check_model(model: Any, argument: str = "model") -> None:
    """Raises `TypeError` for what is no model, and for one in a wrapper of its own."""
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"You passed {argument} as a {kind}, which is no model. Pass a model such as "
            "`CLIPModel.from_pretrained(...)`, or its Hub id or folder; of a pipeline its `model`."
        )
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    if inner is not model:
        raise TypeError(
            f"You passed {argument} as a {kind} around a {type(inner).__name__}, but the attack has to reach the "
            "model inside, which the trainer wraps and compiles itself. Pass the model inside, and torch_compile=True "
            "if it should be compiled."
        )


def check_processor(processor: Any) -> None:
    """Raises `ValueError` for a model object without its processor, `TypeError` for one without pixel statistics."""
    if processor is None:
        raise ValueError(
            "You passed a model object without its processor, so neither prompts nor pixels can be made. Pass "
            "`processing_class=CLIPProcessor.from_pretrained(...)`."
        )
    pixel_statistics(processor)


def check_text(objective: Objective, model: nn.Module, has_evaluation: bool, has_head: bool) -> None:
    """Raises `ValueError` for a model without a text tower where one is needed."""
    if get_encoder(model).text_modules:
        return
    kind = type(unwrap_peft(model)).__name__
    if objective.uses_text:
        raise ValueError(
            f"You passed objective {type(objective).__name__} with a {kind}, which has no text tower to compare "
            "images with. Pass an objective of image features alone (fare, sim_clip), or a dual encoder."
        )
    if has_evaluation and not has_head:
        raise ValueError(
            f"You passed eval_dataset with a {kind}, which has no text tower to classify by. Pass `head`, such as "
            "NearestClassMean(support)."
        )


def check_teacher(teacher: nn.Module, model: nn.Module, objective: Objective) -> None:
    """Raises `ValueError` for a teacher that cannot guide this model, `TypeError` for one that is no encoder."""
    backbone = get_backbone(teacher) if objective.uses_text else get_encoder(teacher)
    if teacher is model or unwrap_peft(teacher) is unwrap_peft(model):
        raise ValueError(
            "You passed the model itself as its teacher, so the teacher would change while it guides. Leave "
            "`teacher` out (a frozen copy is made), or pass another object."
        )
    if objective.uses_patches:
        check_patches(backbone, unwrap_peft(teacher))

    # Same pixels in, embeddings of the same space out
    student, plain_student, plain_teacher = get_encoder(model), unwrap_peft(model), unwrap_peft(teacher)
    student_width, teacher_width = student.width(plain_student.config), backbone.width(plain_teacher.config)
    if not objective.uses_text:
        if student_width != teacher_width:
            raise ValueError(
                f"The embeddings of the teacher, a {type(plain_teacher).__name__}, have {teacher_width} dimensions, "
                f"the model's {student_width}, so there is no distance between them. Pass a teacher of the model's "
                "width."
            )
        return
    student_shape = (student.image_size(plain_student), student_width)
    teacher_shape = (backbone.image_size(plain_teacher), teacher_width)
    if student_shape != teacher_shape:
        raise ValueError(
            f"The teacher's image size and embedding width are {teacher_shape}, the model's {student_shape}; their "
            "predictions on the same pixels cannot be compared. Pass a teacher of the model's shape."
        )


def check_training(args: PMGAFTConfig, dataset: Any, model: nn.Module) -> None:
    """Raises `ValueError` for a run that would make no step or move no weight, and warns of a learning rate of 0."""
    if dataset is None:
        raise ValueError("There is nothing to train on. Pass `train_dataset`.")
    if args.max_steps == 0 or (args.max_steps < 0 and args.num_train_epochs <= 0):
        asked = "max_steps=0" if args.max_steps == 0 else f"num_train_epochs={args.num_train_epochs}"
        raise ValueError(
            f"You passed {asked}, which is no step, so nothing would be trained. Pass 1 or more; to measure a model "
            "as it is, run `pmgaft evaluate` or call `evaluate`."
        )

    # Of a stream, which has no length, `check_stream` has read the first rows.
    count = len(dataset) if hasattr(dataset, "__len__") else None
    if count == 0:
        raise ValueError("You passed a training set without rows, so nothing would be trained. Pass another set.")
    needed = rows_per_batch(args) if args.dataloader_drop_last else 1
    if count is not None and count < needed:
        raise ValueError(
            f"You passed {count} training images with batches of {needed} and dataloader_drop_last, which drops all "
            "of them, so nothing would be trained. Pass a smaller --per_device_train_batch_size, or "
            "--dataloader_drop_last false."
        )

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "You passed a model and a tuning of which no weight is trained, so all would stay as it is. Pass another "
            "tuning, or let parameters of it require gradients."
        )
    if args.learning_rate == 0 and args.process_index == 0:
        logger.warning("You passed learning_rate=0, by which no weight moves: the model stays as it is.")


def check_pair(objective: Objective, tuning: Tuning, model: nn.Module, args: PMGAFTConfig) -> None:
    """Raises `ValueError` for an objective, a tuning, a prepared model or arguments that do not fit each other."""
    objective_name, tuning_name = type(objective).__name__, name_of(tuning)
    attached = attachment_of(model)

    # The text side
    if text_is_live(model) and not objective.uses_text:
        raise ValueError(
            f"You passed objective {objective_name} with tuning {tuning_name!r}, which learns on the text side, where "
            "the objective sends no gradient. Choose a tuning of the vision tower, or an objective with text."
        )
    if objective.uses_captions and attached is not None and not attached.takes_captions:
        raise ValueError(
            f"You passed objective {objective_name}, which reads captions, with tuning {tuning_name!r}, whose prompts "
            "have places for class names alone. Choose another tuning, or an objective over classes."
        )

    if objective.uses_captions and args.gradient_accumulation_steps > 1 and args.process_index == 0:
        logger.warning(
            "Objective %s tells each caption from the others of its batch, of which accumulation makes smaller ones: "
            "among %d in place of %d. Pass gradient_accumulation_steps=1, or more processes.",
            objective_name,
            args.train_batch_size * args.world_size,
            args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        )

    # The image side
    if objective.uses_patches:
        check_patches(get_encoder(model), unwrap_peft(model))
    if args.torch_compile and get_encoder(model).vision_layers is None:
        raise ValueError(
            f"You passed torch_compile with a {type(unwrap_peft(model)).__name__}, whose vision tower may be of "
            "any kind, so its blocks, which would be compiled, are not known. Leave torch_compile out."
        )

    # The attack, and what is done with the weights
    if objective.steers_attack and (args.attack_kwargs or {}).get("tau") is not None:
        raise ValueError(
            f"You passed tau in attack_kwargs with objective {objective_name}, whose attack maximises a loss of its "
            "own, without logits that would say when to stop. Leave tau out, or choose pmg_aft or tecoa."
        )
    if args.wise_ft is not None and keeps_weights(model):
        raise ValueError(
            f"You passed wise_ft with tuning {tuning_name!r}, which adds to the original weights and leaves them, so "
            "that there is nothing to mix. Leave wise_ft out, or tune 'vision_tower' or 'last_blocks'."
        )


def check_metric(
    args: PMGAFTConfig,
    sets: Mapping[str, EvaluationImages] | None,
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]],
    has_own_metrics: bool,
) -> None:
    """Raises `ValueError` for a choice of the best model by a metric that no evaluation gives.

    Args:
        args (`PMGAFTConfig`): Names the metric.
        sets (`dict`, *optional*): The evaluation sets by name.
        callbacks: Of which one may stop the run by the metric.
        has_own_metrics (`bool`): Whether `compute_metrics` adds metrics of any name to those of a classified set.
    """
    metric = args.metric_for_best_model
    stops_early = any(
        callback is EarlyStoppingCallback or isinstance(callback, EarlyStoppingCallback) for callback in callbacks
    )
    if stops_early and (metric is None or args.eval_strategy == "no"):
        raise ValueError(
            f"You passed an EarlyStoppingCallback with metric_for_best_model={metric!r} and eval_strategy="
            f"{str(args.eval_strategy.value)!r}, so there is nothing for it to follow. Pass metric_for_best_model="
            f"{ROBUST_ACCURACY!r} and eval_strategy='steps' or 'epoch'."
        )
    if metric is None or not sets:
        return

    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    names = metric_names(list(sets.values()))
    own = [f"eval_{key}_" for key, data in sets.items() if has_own_metrics and isinstance(data, ZeroShotDataset)]
    if name not in names and not name.startswith(tuple(own)):
        robust = [name for name in reversed(names) if "_robust_" in name]  # the mean stands last
        raise ValueError(
            f"You passed metric_for_best_model={metric!r}, which no evaluation gives, so the run would end at its "
            f"first one. Pass one of: {', '.join(robust[:8])}{', ...' if len(robust) > 8 else ''}; or the same with "
            "clean in place of robust."
        )


def checked_guidance_names(guidance_names: Sequence[str] | None, accept_any: bool = False) -> list[str] | None:
    """The names that guidance terms range over, as a list; `ValueError` as for those of classes."""
    if guidance_names is None:
        return None
    names = check_class_names(guidance_names)
    if not accept_any:
        check_readable(names)
    return names


def training_class_names(
    given: Sequence[str] | None, dataset: Any, objective: Objective, accept_any: bool = False
) -> list[str] | None:
    """The class names of training: the given ones, else those of the set; none where an objective needs none.

    Raises:
        ValueError: if there are none, and no prompt could be made; and for given ones that mean nothing to a text
            tower, unless any are accepted or the objective makes no prompts of them.
    """
    are_optional = objective.uses_captions or not objective.uses_text
    if given is not None:
        names = check_class_names(given)
        if not accept_any and not are_optional:
            check_readable(names)
        return names
    names = getattr(dataset, "class_names", None)
    if names is None and dataset is not None and not are_optional:
        raise ValueError(
            "The training set holds `pixel_values` but no class names, so no prompt can be made. Pass "
            "`class_names`, one name per label."
        )
    return names
