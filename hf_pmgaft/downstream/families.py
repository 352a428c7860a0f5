"""One row per family of vision-language models: where pixels enter, and what else its forward pass is told."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn

from .towers import SWAPPED


@dataclass(frozen=True)
class Family:
    """Says how a family takes an image and a prompt. All families are `AutoModelForImageTextToText`.

    Args:
        own_size (`bool`): Whether images come at the tower's size, and the package normalises them itself, as for a
            CLIP; that works with Pillow alone. Otherwise they are attacked at the file's pixels, through the graph of
            the family's own processor, which needs torchvision.
        by_size (`tuple[str, ...]`): What the model is told beside the pixel values. It follows from an image's size
            alone, as the number of the image's tokens does.
        token_types (`str`, *optional*): The input that says of each token what it is.
        answer_type (`int`): Its value for the tokens of an answer.
        one_each (`bool`): Whether a list of images is read as those of one text, so that each needs a list of its own.
        projector (`str`): Path to the module that takes the tower's tokens to the language model's width.
        prompt (`str`, *optional*): What a question becomes where the processor has no chat template.
        transformers (`tuple[int, int]`): The oldest release with which the family was seen to work.

    Example:
        >>> FAMILIES["qwen2_5_vl"].by_size
        ('image_grid_thw',)
    """

    own_size: bool = False
    by_size: tuple[str, ...] = ()
    token_types: str | None = None
    answer_type: int = 0
    one_each: bool = False
    projector: str = "model.multi_modal_projector"
    prompt: str | None = None
    transformers: tuple[int, int] = (5, 19)


_QWEN = Family(by_size=("image_grid_thw",), token_types="mm_token_type_ids", projector="model.visual.merger")
_IDEFICS = Family(by_size=("pixel_attention_mask",), one_each=True, projector="model.connector")

# By the `model_type` of the configuration.
FAMILIES: dict[str, Family] = {
    "llava": Family(own_size=True),
    # Prompts see both ways, type 0; answers see what came before, type 1. The checkpoints have no template.
    "paligemma": Family(token_types="token_type_ids", answer_type=1, prompt="<image>{question}"),
    # Before 5.23 the processor has its options elsewhere: the numbers of pan-and-scan, and InternVL's tiles.
    "gemma3": Family(token_types="token_type_ids", transformers=(5, 23)),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "llava_next": Family(by_size=("image_sizes",)),
    "llava_onevision": Family(by_size=("image_sizes", "batch_num_images")),
    "internvl": Family(transformers=(5, 23)),
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
}


def family_named(kind: str) -> Family:
    """Finds the row of a `model_type`.

    Raises:
        TypeError: if there is none.
        ImportError: if what is installed is too old for the family, or lacks torchvision.

    Example:
        >>> family_named("llava").own_size
        True
        >>> family_named("bert")
        Traceback (most recent call last):
        TypeError: ... is a bert, ... Pass one of: gemma3, idefics3, ...
    """
    family = FAMILIES.get(kind)
    if family is None:
        raise TypeError(
            f"The model is a {kind}, but the attack goes through the language model of a family that the package "
            f"knows. Pass one of: {', '.join(sorted(FAMILIES))}."
        )
    if _release() < family.transformers:
        least = ".".join(str(number) for number in family.transformers)
        raise ImportError(
            f"The model is a {kind}, which needs transformers {least} or newer, but {transformers.__version__} is "
            "installed, with which it was not seen to work. Run `pip install -U transformers`."
        )
    if not family.own_size and importlib.util.find_spec("torchvision") is None:
        raise ImportError(
            f"The model is a {kind}, which needs torchvision: its processor without it works in NumPy, through which "
            "no gradient goes. Run `pip install torchvision`, of the release that belongs to your torch."
        )
    return family


def family_of(model: nn.Module) -> Family:
    """Finds the row of a model.

    Raises:
        TypeError: if it is no vision-language model of a family of the table, or a LLaVA on a tower of several sizes.
        ImportError: as [`family_named`].
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if not hasattr(config, "vision_config") or not hasattr(model, "generate"):
        raise TypeError(
            f"You passed a {type(model).__name__}, but the attack goes through the language model of a "
            f"vision-language model. Pass one of: {', '.join(sorted(FAMILIES))}."
        )
    family = family_named(kind)
    tower = config.vision_config.model_type
    if family.own_size and tower not in SWAPPED:
        raise TypeError(
            f"You passed a {type(model).__name__} whose vision tower is a {tower}, but images are attacked at the one "
            f"size of a CLIP's or a SigLIP's tower. Pass a {kind} that was built on one."
        )
    return family


def image_processor_of_torchvision(processor: Any) -> Any:
    """The part of a processor that makes pixel values, which must be torchvision's kind to let gradients through.

    Raises:
        TypeError: if it is of another kind.
    """
    image_processor = processor.image_processor
    if getattr(image_processor, "backend", None) != "torchvision":
        raise TypeError(
            f"You passed a {type(processor).__name__} with a {type(image_processor).__name__}, which works in NumPy, "
            "so that no gradient goes through it. AutoProcessor makes the other kind where torchvision is installed, "
            "0.27 or newer."
        )
    return image_processor


def _release() -> tuple[int, ...]:
    return tuple(int(number) for number in transformers.__version__.split(".")[:2])
