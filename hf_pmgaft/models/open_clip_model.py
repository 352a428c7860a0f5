"""Models that open_clip alone can build, such as ConvNeXt towers, as far as evaluation needs them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from .open_clip_config import CLIP_VOCABULARY, CONFIG, image_processor_from
from .processors import HOW_TO_PASS
from .sources import NO_CODE, Source
from .weights import mismatches, read_weights


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
        ...     def encode_image(self, pixel_values, normalize):
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
        # CoCa normalises unless told otherwise.
        return SimpleNamespace(pooler_output=self.clip.encode_image(self.pixel_values, normalize=False))

    @property
    def text_embeds(self) -> torch.Tensor:
        """The embeddings of the texts, `[N,D]`."""
        return self.clip.encode_text(self.input_ids, normalize=False)


class OpenClipTokenizer:
    """A tokenizer of open_clip, called as one of transformers: texts at full length.

    Args:
        tokenize (`Callable`): Texts -> token ids `[N,L]`.
        length (`int`): L, to which longer texts are cut and shorter ones padded.
        vocab_size (`int`, *optional*): How many tokens the model knows.

    Example:
        >>> tokenizer = OpenClipTokenizer(lambda texts: torch.zeros(len(texts), 77, dtype=torch.long), length=77)
        >>> tokenizer(["a photo"])["input_ids"].shape
        torch.Size([1, 77])
    """

    pad_token_id = 0

    def __init__(self, tokenize: Any, length: int, vocab_size: int | None = None):
        self.tokenize = tokenize
        self.model_max_length = length
        self.vocab_size = vocab_size

    def __call__(self, text: Sequence[str] | str, **options: Any) -> dict[str, torch.Tensor]:
        """Token ids and a mask of ones, `[N,L]`; the options of transformers change nothing.

        Raises:
            ValueError: for ids that the model has no embedding of.
        """
        ids = self.tokenize([text] if isinstance(text, str) else list(text))
        if self.vocab_size is not None and ids.max() >= self.vocab_size:
            raise ValueError(
                f"The tokenizer gave id {int(ids.max())} to a model of {self.vocab_size} tokens, so it belongs to "
                f"another. Pass the model's own: {HOW_TO_PASS}."
            )
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
        ImportError: if open_clip is not installed, or timm, whose tower it is.
        OSError: if the text tower is one of transformers whose configuration cannot be had.
        ValueError: if it cannot build the model, or the weights are those of another.
    """
    open_clip = _import_open_clip(name, reasons)
    _check_towers(config["model_cfg"], name)
    with _no_warnings(), _understanding(name):  # no warning that it has no weights yet
        clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)

    weights = read_weights(weights_file)
    differing = mismatches(clip.state_dict(), weights)
    if differing:
        raise ValueError(f"The weights of {name} are not those of its {CONFIG}: {differing}. Download both again.")
    clip.load_state_dict(weights)

    model_cfg = config["model_cfg"]
    positions = model_cfg["text_cfg"].get("context_length", 77)
    return OpenClipModel(clip, _edge(clip.visual.image_size), model_cfg["embed_dim"], positions, name).float().eval()


def open_clip_processor(
    tokenizer: Source | None, config: Mapping[str, Any], name: str, reasons: Sequence[str]
) -> SimpleNamespace:
    """The `image_processor` of a configuration, and open_clip's own `tokenizer` for it.

    Args:
        tokenizer (`Source`, *optional*): Where its vocabulary lies; CLIP's own if not given.
        config (`dict`): What the configuration says.
        name (`str`): What the model is called.
        reasons (`list[str]`): Why no `CLIPModel` can hold it.

    Raises:
        ImportError: if open_clip is not installed.
        OSError: if there is no such tokenizer, or none is named for a model without CLIP's vocabulary.
    """
    _import_open_clip(name, reasons)
    text_cfg = config["model_cfg"]["text_cfg"]
    has_own_tower = not text_cfg.get("hf_model_name")  # which the sizes beside it are of
    vocab_size = text_cfg.get("vocab_size", CLIP_VOCABULARY) if has_own_tower else None
    if tokenizer is None and vocab_size != CLIP_VOCABULARY:
        raise OSError(f"{name} holds no tokenizer, and has not CLIP's vocabulary. Pass one: {HOW_TO_PASS}.")
    length = text_cfg.get("context_length", 77)
    tokenize = _tokenizer(tokenizer, text_cfg, length, name)

    image_size = _edge(config["model_cfg"]["vision_cfg"].get("image_size", 224))
    return SimpleNamespace(
        image_processor=image_processor_from(config["preprocess_cfg"], image_size),
        tokenizer=OpenClipTokenizer(tokenize, length, vocab_size),
    )


def _tokenizer(tokenizer: Source | None, text_cfg: Mapping[str, Any], length: int, name: str) -> Any:
    """The tokenizer of open_clip that a description asks for."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    with _understanding(name):
        if tokenizer is None:
            return SimpleTokenizer(context_length=length, **options)
        if text_cfg.get("tokenizer_mode"):
            options["tokenizer_mode"] = text_cfg["tokenizer_mode"]
        options |= {**NO_CODE, "revision": tokenizer.revision}  # whatever a downloaded file asks for
        try:
            return HFTokenizer(tokenizer.name, context_length=length, **options)
        except (OSError, ValueError) as error:
            raise OSError(f"The tokenizer {tokenizer} for {name} cannot be had. Pass one: {HOW_TO_PASS}.") from error


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _understanding(name: str) -> Iterator[None]:
    """Whatever a description makes a builder of many kinds of models stumble over, in one line with the name."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"open_clip cannot build {name} from its {CONFIG}: {first_line}. Check the file, or install the newest "
            "open_clip_torch."
        ) from error


def _import_open_clip(name: str, reasons: Sequence[str]) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            f"{name} is no model that a CLIPModel can hold ({', '.join(reasons[:6])}); it is evaluated through "
            'open_clip, which is not installed. Run pip install "hf_pmgaft[zoo]".'
        ) from error
    return open_clip


def _check_towers(model_cfg: Mapping[str, Any], name: str) -> None:
    """Raises `ImportError` or `OSError` for a tower of another library that cannot be had."""
    if model_cfg["vision_cfg"].get("timm_model_name"):
        try:
            import timm  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"The images of {name} are read by a tower of timm, which cannot be imported ({error}). "
                'Run pip install "hf_pmgaft[zoo]".'
            ) from error

    text_tower = model_cfg["text_cfg"].get("hf_model_name")
    if text_tower:
        try:
            AutoConfig.from_pretrained(text_tower, **NO_CODE)  # open_clip would ask whether to run its code
        except (OSError, ValueError) as error:
            raise OSError(
                f"The texts of {name} are read by {text_tower}, whose configuration cannot be had. Download it once "
                "with a way to the Hub; its code is never run."
            ) from error


def _edge(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"You passed a model of images {height} x {width}. Pass one of square images.")
    return height
