"""What of a model is trained: a tuning chosen and the model prepared for it, or an adapter that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..tuning import PeftAdapter, Tuning, has_adapter, make_tuning, name_of
from ..tuning.base import attachment_of


def prepare_tuning(
    model: nn.Module,
    tuning: str | Tuning,
    options: Mapping[str, Any] | None,
    peft_config: Any,
    class_names: Sequence[str] | None,
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
        model = tuning.for_classes(class_names).prepare(model)
        attached = attachment_of(model)
    else:
        tuning = attached.options
        model.requires_grad_(False)
        attached.requires_grad_(True)
    if attached is not None:
        attached.at_test = False
    return tuning, model
