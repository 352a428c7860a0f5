"""Adapters of the peft library: LoRA, DoRA and others."""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..models.backbones import Backbone, get_encoder
from .base import Tuning


@dataclass
class PeftAdapter(Tuning):
    """Trains an adapter of the peft library. The teacher is the model with the adapter off.

    Args:
        config (`peft.PeftConfig`, *optional*): Of the adapter; `None` trains the one that the model comes with.
        towers (`"vision"` or `"both"`): Where names in `target_modules` are looked for.

    Example:
        >>> tuning = PeftAdapter.from_options({"r": 2, "target_modules": ["q_proj", "v_proj"]})
        >>> tuning.describe()
        'LORA adapter in the vision tower; no text tower'
        >>> type(tuning.prepare(model)).__name__
        'PeftModel'
    """

    config: Any = None
    towers: Literal["vision", "both"] = "vision"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> PeftAdapter:
        """Makes it of `peft_type`, `"LORA"` if absent, the options of its config, and `towers`."""
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING as configs

        options = dict(options)
        towers = options.pop("towers", "vision")
        kind = str(options.pop("peft_type", "LORA")).upper()
        if towers not in ("vision", "both"):
            raise ValueError(f"Tuning 'peft' cannot take towers={towers!r}. Pass 'vision' or 'both'.")
        if kind not in configs:
            raise ValueError(f"Tuning 'peft' cannot take peft_type={kind!r}. Pass one of {sorted(map(str, configs))}.")
        try:
            return cls(configs[kind](**options), towers)
        except TypeError as error:
            raise ValueError(f"Tuning 'peft' cannot take {options} for {kind} ({error}). Correct them.") from error

    def prepare(self, model: nn.Module) -> nn.Module:
        backbone = get_encoder(model)
        if self.config is not None:
            model = add_adapter(model, backbone, self.config, self.towers)
        check_adapter(model, backbone)
        return model

    def describe(self) -> str:
        kind = "adapter" if self.config is None else f"{getattr(self.config.peft_type, 'value', 'peft')} adapter"
        return f"{kind} in {'the vision tower; no text tower' if self.towers == 'vision' else 'both towers'}"


@contextlib.contextmanager
def without_old_names() -> Iterator[None]:
    """Silences what transformers says of a name that peft itself uses, in every version so far.

    Example:
        >>> with without_old_names():
        ...     warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning)
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def add_adapter(model: nn.Module, backbone: Backbone, peft_config: Any, towers: str = "vision") -> nn.Module:
    """Makes a `PeftModel` whose adapter sits in the given towers; suffixes in `target_modules` mean these only.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_pmgaft.models import get_backbone
        >>> adapted = add_adapter(model, get_backbone(model), LoraConfig(target_modules=["q_proj"]))
        >>> any(hasattr(module, "lora_A") for module in adapted.get_base_model().text_model.modules())
        False
    """
    from peft import get_peft_model

    if has_adapter(model):
        raise ValueError(
            "You passed `peft_config` but the model already has adapters, and their meaning for the teacher would be "
            "unclear. Merge them first (`merge_and_unload()`), or pass the model without `peft_config`."
        )

    # peft would put a model of such a task around this one, with a forward of its own.
    _check_config(peft_config)
    peft_config = copy.deepcopy(peft_config)
    peft_config.task_type = None

    # A pattern is the user's own; names become one of the towers asked for.
    targets = getattr(peft_config, "target_modules", None)
    if targets == "all-linear":
        targets = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not isinstance(targets, str):
        layers = sorted(backbone.attention if targets is None else targets)
        roots = backbone.vision_modules + (backbone.text_modules if towers == "both" else ())
        # peft reads numbers of blocks beside names alone, so the pattern says them too.
        blocks = getattr(peft_config, "layers_to_transform", None)
        peft_config.target_modules = _pattern(roots or (".*",), layers, blocks)
        if blocks is not None:
            peft_config.layers_to_transform = peft_config.layers_pattern = None
        # torch's own attention, by which SigLIP pools, reads these weights and would pass an adapter by
        bypassed = [
            f"{name}.out_proj" for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)
        ]
        is_targeted = bypassed and "out_proj" in layers
        if is_targeted and getattr(peft_config, "exclude_modules", bypassed) is None:
            peft_config.exclude_modules = bypassed

    try:
        with without_old_names():
            return get_peft_model(model, peft_config)
    except ValueError as error:
        raise ValueError(
            f"You passed a peft config whose target_modules {targets!r} match nothing in the towers asked for "
            f"({towers}; {error}). Name modules of theirs, such as ['q_proj', 'v_proj']."
        ) from error


def _check_config(peft_config: Any) -> None:
    """Raises `TypeError` for what is no config, `ValueError` for one of a language model."""
    from peft import PeftConfig

    if not isinstance(peft_config, PeftConfig):
        raise TypeError(
            f"You passed peft_config as a {type(peft_config).__name__}. Pass a config of peft, such as "
            "`LoraConfig(r=8)`, or tuning='peft' with a dict as tuning_kwargs."
        )
    if peft_config.is_prompt_learning:
        raise ValueError(
            f"You passed a peft config of {getattr(peft_config.peft_type, 'value', peft_config.peft_type)}, which "
            "puts tokens before those of a language model. Pass tuning='text_context' or 'deep_prompts'."
        )
    task = getattr(peft_config.task_type, "value", peft_config.task_type)
    if task not in (None, "FEATURE_EXTRACTION"):
        raise ValueError(
            f"You passed a peft config with task_type={task!r}, a task of language models, for which a dual encoder "
            "has no outputs. Leave task_type out."
        )


def _pattern(roots: Collection[str], layers: Collection[str], blocks: int | Collection[int] | None = None) -> str:
    """A pattern for the paths of layers, named by the end of their path, below one of several modules; in some of
    their blocks, if they are numbered."""
    numbers = [blocks] if isinstance(blocks, int) else blocks
    in_blocks = "" if numbers is None else rf"(?=.*\.({'|'.join(map(str, numbers))})\.)"
    return rf"(?=({'|'.join(roots)})(\.|$)){in_blocks}(.*\.)?({'|'.join(map(re.escape, layers))})"


def check_adapter(model: nn.Module, backbone: Backbone) -> None:
    """Raises `ValueError` unless a model trains an adapter in its towers and nothing else."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise ValueError(
            f"You passed a {type(model).__name__} with adapter layers inside, which cannot be switched off for the "
            "teacher. Pass the plain model with `peft_config`, or a `PeftModel`."
        )
    check_takes_images(model)
    trained = [name for name, parameter in model.get_base_model().named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(
            "You passed a `PeftModel` whose adapter is frozen, so nothing would be trained. Load it with "
            "`PeftModel.from_pretrained(..., is_trainable=True)`."
        )

    marks = (model.base_model.prefix, "modules_to_save")  # in the names of what the adapter brought
    original = [name for name in trained if not any(mark in name for mark in marks)]
    if original:
        raise ValueError(
            f"The adapter would train the model's own {original[0]} and {len(original) - 1} more, so the teacher, "
            'which is the model with the adapter off, would change as well. Use bias="none" and freeze the model.'
        )


def check_takes_images(model: nn.Module) -> None:
    """Raises `ValueError` for a `PeftModel` of a task, whose forward takes texts alone.

    Example:
        >>> check_takes_images(model)
    """
    configs = getattr(model, "peft_config", {})
    tasks = {getattr(config.task_type, "value", config.task_type) for config in configs.values()} - {None}
    if tasks:
        raise ValueError(
            f"You passed a {type(model).__name__}, which peft makes for task_type={min(tasks)!r}, and whose forward "
            "takes texts alone. Leave task_type out of the adapter's config, or load a saved one by `load_model`."
        )


def has_adapter(model: nn.Module) -> bool:
    """Whether a model is a `PeftModel` or holds adapter layers.

    Example:
        >>> has_adapter(model)
        False
    """
    return hasattr(model, "peft_config") or any(hasattr(module, "lora_A") for module in model.modules())
