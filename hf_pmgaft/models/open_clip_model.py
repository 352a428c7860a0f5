"""Models that open_clip alone can build, such as ConvNeXt towers, as far as evaluation needs them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from .open_clip_config import CONFIG, image_processor_from
from .weights import mismatches, read_weights

# Any of them says that a folder has a tokenizer of its own.
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt")


class OpenClipModel(nn.Module):
    """A model of open_clip as an image encoder and a text encoder; it is evaluated, and neither trained nor saved.

    Args:
        clip (`nn.Module`): With open_clip's `encode_image`, `encode_text` and `logit_scale`.
        image_size (`int`): Height and width of its images.
        embed_dim (`int`): Width of its embeddings.
        text_positions (`int`): How many tokens a text has.
        name (`str`): What it is called.

    Example:
        >>> from hf_pmgaft import get_encoder
        >>> class Clip(nn.Linear):
        ...     def encode_image(self, pixel_values):
        ...         return self(pixel_values.mean(dim=(2, 3)))
        >>> averages = OpenClipModel(Clip(3, 8), image_size=16, embed_dim=8, text_positions=77, name="averages")
        >>> get_encoder(averages).image_embeds(averages, images).shape
        torch.Size([16, 8])
    """

    def __init__(self, clip: nn.Module, image_size: int, embed_dim: int, text_positions: int, name: str):
        super().__init__()
        self.clip = clip
        self.name_or_path = name
        self.config = PretrainedConfig(
            image_size=image_size,
            projection_dim=embed_dim,
            text_config=PretrainedConfig(max_position_embeddings=text_positions),
        )

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> OpenClipOutput:
        """Pixel values `[B,3,H,W]` and token ids `[N,L]` -> their embeddings, each computed if it is asked for."""
        return OpenClipOutput(self.clip, pixel_values, input_ids)


@dataclass(frozen=True)
class OpenClipOutput:
    """The embeddings of images and texts by a model of open_clip, under the names that transformers gives them.

    Args:
        clip (`nn.Module`): The model.
        pixel_values (`torch.Tensor`): `[B,3,H,W]`.
        input_ids (`torch.Tensor`): `[N,L]`.
    """

    clip: nn.Module
    pixel_values: torch.Tensor
    input_ids: torch.Tensor

    @property
    def vision_model_output(self) -> SimpleNamespace:
        """Its `pooler_output` is the embeddings of the images, `[B,D]`."""
        return SimpleNamespace(pooler_output=self.clip.encode_image(self.pixel_values))

    @property
    def text_embeds(self) -> torch.Tensor:
        """The embeddings of the texts, `[N,D]`."""
        return self.clip.encode_text(self.input_ids)


class OpenClipTokenizer:
    """A tokenizer of open_clip, called as one of transformers: texts at full length.

    Args:
        tokenize (`Callable`): Texts -> token ids `[N,L]`.

    Example:
        >>> tokenizer = OpenClipTokenizer(lambda texts: torch.zeros(len(texts), 77, dtype=torch.long))
        >>> tokenizer(["a photo"])["input_ids"].shape
        torch.Size([1, 77])
    """

    pad_token_id = 0

    def __init__(self, tokenize: Any):
        self.tokenize = tokenize

    def __call__(self, text: Sequence[str] | str, **options: Any) -> dict[str, torch.Tensor]:
        """Token ids and a mask of ones, `[N,L]`; the options of transformers change nothing."""
        ids = self.tokenize([text] if isinstance(text, str) else list(text))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def check_trainable(model: nn.Module) -> None:
    """Raises `TypeError` for a model that is there to be evaluated alone.

    Example:
        >>> check_trainable(model)
    """
    if isinstance(model, OpenClipModel):
        raise TypeError(
            f"You passed {model.name_or_path}, which no CLIPModel can hold, so that it is evaluated through "
            "open_clip, but neither trained, converted nor a teacher. Pass a model of transformers."
        )


def open_clip_model(
    folder: str, weights_file: str, config: Mapping[str, Any], name: str, reasons: Sequence[str]
) -> OpenClipModel:
    """Builds a model by open_clip and reads its weights, never a pickle that could run code.

    Args:
        folder (`str`): Holds `open_clip_config.json`.
        weights_file (`str`): Weights of the whole model.
        config (`dict`): What the configuration says.
        name (`str`): What the model is called.
        reasons (`list[str]`): Why no `CLIPModel` can hold it.

    Raises:
        ImportError: if open_clip is not installed.
        ValueError: if it cannot build the model, or the weights are those of another.
    """
    open_clip = _import_open_clip(name, reasons)
    try:
        with _no_warnings():  # that it has no weights yet
            clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    except Exception as error:  # whatever a description makes a builder of many kinds of models stumble over
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"open_clip cannot build {name} from its {CONFIG}: {first_line}. Check the file, or install the newest "
            "open_clip_torch."
        ) from error

    weights = read_weights(weights_file)
    differing = mismatches(clip.state_dict(), weights)
    if differing:
        raise ValueError(f"The weights of {name} are not those of its {CONFIG}: {differing}. Download both again.")
    clip.load_state_dict(weights)

    model_cfg = config["model_cfg"]
    positions = model_cfg["text_cfg"].get("context_length", 77)
    return OpenClipModel(clip, _edge(clip.visual.image_size), model_cfg["embed_dim"], positions, name).float().eval()


def open_clip_processor(folder: str, config: Mapping[str, Any], name: str, reasons: Sequence[str]) -> SimpleNamespace:
    """The `image_processor` of a configuration, and open_clip's own `tokenizer` for it.

    Raises:
        ImportError: if open_clip is not installed.
    """
    open_clip = _import_open_clip(name, reasons)
    text = config["model_cfg"]["text_cfg"]
    named = text.get("hf_tokenizer_name")
    if named and not any((Path(folder) / file).is_file() for file in TOKENIZER_FILES):
        tokenize = open_clip.HFTokenizer(
            named,
            context_length=text.get("context_length", 77),
            tokenizer_mode=text.get("tokenizer_mode"),
            **(text.get("tokenizer_kwargs") or {}),
        )
    else:
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    preprocess = config["preprocess_cfg"]
    image_size = _edge(config["model_cfg"]["vision_cfg"].get("image_size", 224))
    return SimpleNamespace(
        image_processor=image_processor_from(preprocess, image_size), tokenizer=OpenClipTokenizer(tokenize)
    )


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _import_open_clip(name: str, reasons: Sequence[str]) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            f"{name} is no model that a CLIPModel can hold ({', '.join(reasons[:6])}); it is evaluated through "
            'open_clip, which is not installed. Run pip install "hf_pmgaft[zoo]".'
        ) from error
    return open_clip


def _edge(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"You passed a model of images {height} x {width}. Pass one of square images.")
    return height
