"""Prepares a model for training by its tuning, and the teacher that guides it: what is trained, in what dtype."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..models.backbones import Backbone, get_encoder, unwrap_peft
from ..models.open_clip_model import check_trainable
from ..models.own_classes import check_own_pass, check_own_tower
from ..models.precision import check_floating, check_has_values, other_dtypes, to_float32
from ..models.processors import check_image_size, tokenizer_of
from ..objectives import Objective
from ..tuning import PeftAdapter, Tuning, has_adapter, make_tuning, name_of
from ..tuning.base import attachment_of
from ..tuning.saved import load_model, load_pair
from . import checks
from .texts import Texts

logger = logging.getLogger(__name__)


def train_in_float32(model: nn.Module) -> None:
    """Converts the weights of a model in place, and says so, if they are stored in another dtype.

    In half precision most small steps are rounded away, and AdamW's epsilon is zero. Mixed precision (bf16, fp16) is
    an argument of the run, and keeps weights in float32. The parameters stay the objects that an optimizer may hold.

    Raises:
        ValueError: for weights without values, and quantised ones.
    """
    check_has_values(model)
    check_floating(model)
    dtypes = other_dtypes(model)
    if dtypes:
        logger.warning(
            "The model came with weights in %s and is trained, and saved, in float32: it was converted in place. "
            "Pass bf16=True for passes in bfloat16.",
            " and ".join(dtypes),
        )
        to_float32(model)


def guide_in_float32(teacher: nn.Module) -> nn.Module:
    """A teacher as it is, or a copy in float32 of one that is stored in another dtype.

    Raises:
        ValueError: for weights without values, and quantised ones.
    """
    check_has_values(teacher)
    check_floating(teacher)
    dtypes = other_dtypes(teacher)
    if not dtypes:
        return teacher
    logger.warning("The teacher came with weights in %s, and guides as a copy in float32.", " and ".join(dtypes))
    return to_float32(copy.deepcopy(teacher))


def prepare_model(model: nn.Module | str | os.PathLike, processor: Any) -> tuple[nn.Module, Any, Backbone]:
    """A model that can be trained, in float32, with its processor and its backbone; loaded by its name if need be.

    Raises:
        TypeError: for what is no model that the package knows.
        ValueError: for a processor that makes no pixels, and weights without values.
    """
    model, processor = load_pair(model, processor)
    checks.check_model(model)
    check_trainable(model)
    backbone = get_encoder(model)
    checks.check_processor(processor)
    check_image_size(processor, backbone.image_size(unwrap_peft(model)))
    train_in_float32(model)
    check_own_pass(model)
    check_own_tower(model)
    return model, processor, backbone


def prepare_teacher(
    teacher: nn.Module | str | os.PathLike | None, model: nn.Module, objective: Objective
) -> nn.Module | None:
    """A teacher that can guide a model, in float32, loaded by its name if need be; `None` if none was passed.

    Raises:
        TypeError: for what is no model that the package knows.
        ValueError: for a teacher whose texts or embeddings do not fit the model's, or whose weights have no values.
    """
    if teacher is None:
        return None
    if isinstance(teacher, str | os.PathLike):
        teacher = load_model(os.fspath(teacher))
    checks.check_model(teacher, "teacher")
    check_trainable(teacher)
    checks.check_teacher(teacher, model, objective)
    teacher = guide_in_float32(teacher)
    check_own_pass(teacher)
    check_own_tower(teacher)
    return teacher


def prepare_tuning(
    model: nn.Module,
    tuning: str | Tuning,
    options: Mapping[str, Any] | None,
    peft_config: Any,
    texts: Texts,
) -> tuple[Tuning, nn.Module]:
    """A tuning, and the model prepared for it: frozen but for what is trained.

    A model that carries an adapter, or what another tuning added in an earlier run, is trained on as it is.

    Raises:
        ValueError: for an adapter with a tuning that trains something else, or options that do not fit.
    """
    tuning = make_tuning(tuning, options)
    if peft_config is not None or has_adapter(model):
        if name_of(tuning) not in ("vision_tower", "peft"):
            raise ValueError(
                f"You passed an adapter and tuning={name_of(tuning)!r}, which trains something else. Pass one of "
                "them; `layers_to_transform` of the peft config chooses blocks."
            )
        if peft_config is not None or not isinstance(tuning, PeftAdapter):
            tuning = PeftAdapter(peft_config)

    attached = attachment_of(model)
    if attached is None:
        fitting = tuning.for_classes(texts.class_names).for_tokenizer(tokenizer_of(texts.processor))
        model = fitting.prepare(model)
        attached = attachment_of(model)
    else:
        tuning = attached.options
        model.requires_grad_(False)
        attached.requires_grad_(True)
    if attached is not None:
        attached.at_test = False
    return tuning, model
