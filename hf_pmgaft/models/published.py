"""Models that others published, and their processors, by name: of transformers, of open_clip, and files of weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

from .backbones import ENCODERS, get_encoder
from .open_clip import WEIGHTS, find_weights, is_vision_tower, load_weights, read_open_clip
from .open_clip_config import (
    CLIP_VOCABULARY,
    CONFIG,
    check_base_fits,
    clip_config,
    image_processor_from,
    read_open_clip_config,
    what_no_clip_holds,
)
from .open_clip_model import open_clip_model, open_clip_processor
from .processors import HOW_TO_PASS, image_processor_of, pixel_statistics, tokenizer_of
from .sources import NO_CODE, Source
from .weights import check_finite, read_weights

CLIP_TOKENIZER = "openai/clip-vit-base-patch32"  # has the vocabulary of every CLIP that names no other
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
# Any of them says that a folder has a tokenizer of its own.
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt")
# What compiled and wrapped models put before the names of their weights
WRAPPED = {r"^(?:module\.|_orig_mod\.|model\.)+": ""}


def open_model(source: Source, base: CLIPModel | None = None) -> nn.Module:
    """Opens a plain model in float32, by the layout that its files have.

    Args:
        source (`Source`): A folder or repository of transformers or open_clip, or a file of weights.
        base (`CLIPModel`, *optional*): The model that it was trained from, where it holds no configuration or the
            vision tower alone.

    Raises:
        OSError: if there is no such model.
        ValueError: if its files do not fit each other or the base.

    Example:
        >>> model.save_pretrained("robust")
        >>> type(open_model(Source.of("robust"))).__name__
        'CLIPModel'
    """
    if _is_of_transformers(source):
        if base is not None:
            raise ValueError(
                f"You passed a base for {source}, which is a whole model, so that it has no effect. Leave it out."
            )
        model = _open_transformers(source)
    elif source.find(CONFIG) is not None:
        model = _open_described(source, base)
    elif find_weights(source) is not None:
        if base is None:
            raise ValueError(
                f"{source} holds weights without a configuration, so neither their activation nor their images are "
                "known. Pass the model that it was trained from: --base ID, in Python base_model=ID."
            )
        model = read_open_clip(source.name, base)
    else:
        model = _open_transformers(source)  # which says what is missing
    check_finite(model, str(source))
    return model


def open_processor(source: Source, processor: str | None = None, base: str | None = None) -> Any:
    """Opens the processor of a plain model by name.

    Args:
        source (`Source`): Of the model.
        processor (`str`, *optional*): Where to take it from, if the model has none of its own. Beside an
            `open_clip_config.json` it gives the tokenizer alone.
        base (`str`, *optional*): The model that it was trained from; its processor is taken if no other is found.

    Raises:
        OSError: if there is none.
        ValueError: if pixel statistics contradict those of `open_clip_config.json`.

    Example:
        >>> _ = processor.save_pretrained("robust")
        >>> type(open_processor(Source.of("robust"))).__name__
        'CLIPProcessor'
    """
    config_file = None if _is_of_transformers(source) else source.find(CONFIG)
    if config_file is not None:
        return _processor_described(source, config_file, processor or base)
    other = processor or (base if source.is_file or find_weights(source) else None)
    if other is not None:
        return _own_processor(Source.of(other))
    if source.is_file:
        raise OSError(f"{source} is a file of weights, which has no processor. Pass one: {HOW_TO_PASS}.")
    return _own_processor(source)


def has_processor(source: Source) -> bool:
    """Whether a model has a processor of its own."""
    if source.find(CONFIG) is not None:
        return True
    return not source.is_file and any(map(source.find, PROCESSOR_FILES))


def is_whole(source: Source) -> bool:
    """Whether a plain model opens by its name alone."""
    if _is_of_transformers(source):
        return True
    file = find_weights(source)
    if file is None:
        return True  # or not at all
    return source.find(CONFIG) is not None and not is_vision_tower(read_weights(file))


# ---- Of transformers ----


def _is_of_transformers(source: Source) -> bool:
    """Whether there is a configuration that transformers knows. timm has one of the same name."""
    file = None if source.is_file else source.find("config.json")
    if file is None:
        return False
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{file} is no JSON ({error}). Download it again.") from error
    return "model_type" in config or source.find(CONFIG) is None


def _open_transformers(source: Source) -> nn.Module:
    options = {**NO_CODE, "revision": source.revision}
    with _one_line(source):
        # AutoModel would leave out the projection of a vision tower that was saved with it.
        saved_as = AutoConfig.from_pretrained(source.name, **options).architectures or ()
        encoder = next((kind for kind in saved_as if kind in ENCODERS), None)
        loader = AutoModel if encoder is None else getattr(transformers, encoder)
        options |= {"dtype": torch.float32, "output_loading_info": True}
        model, info = loader.from_pretrained(source.name, **options)
        if _missing(model, info):
            model, info = loader.from_pretrained(source.name, key_mapping=WRAPPED, **options)

    missing = _missing(model, info)
    if missing:
        raise ValueError(
            f"The files of {source} lack weights of its {type(model).__name__}, which would be random: "
            f"{', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}. Have it saved anew, whole."
        )
    config_file = source.find("config.json")
    model.config._commit_hash = None if config_file is None else source.commit(config_file)
    return model


def _missing(model: nn.Module, info: dict[str, Any]) -> list[str]:
    """Weights that files lack and embeddings depend on."""
    try:
        unused = get_encoder(model).unused
    except TypeError:
        return []  # a model that is of no use here, as is said where it is used
    missing = sorted(info["missing_keys"])
    return [name for name in missing if not name.startswith(unused)]


def _own_processor(source: Source) -> Any:
    source.check_reached()
    try:
        with _one_line(source):
            return AutoProcessor.from_pretrained(source.name, revision=source.revision, **NO_CODE)
    except (OSError, ValueError) as error:
        if "custom code" in str(error) or isinstance(error, ConnectionError):
            raise
        raise OSError(
            f"{source} holds no processor, without which neither texts nor pixels can be made. Pass that of the model "
            f"it was trained from: {HOW_TO_PASS}."
        ) from error


@contextlib.contextmanager
def _one_line(source: Source) -> Iterator[None]:
    """Errors of transformers about what cannot be found, in one line with the name."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "Unrecognized model" not in str(error):
            raise
        if not source.is_local:
            raise source.unreachable(error) from error
        held = [] if source.is_file else sorted(path.name for path in Path(source.name).iterdir())[:6]
        raise OSError(
            f"{source} is no model that can be opened: it holds {', '.join(held) or 'nothing'}, but a model has "
            f"config.json and model.safetensors, or {CONFIG} and {WEIGHTS[0]}. Pass the folder of such a model."
        ) from error


# ---- Of open_clip ----


def _open_described(source: Source, base: CLIPModel | None) -> nn.Module:
    """A model by its `open_clip_config.json`."""
    config_file = source.find(CONFIG)
    config = read_open_clip_config(config_file)
    weights_file = find_weights(source)
    if weights_file is None:
        raise FileNotFoundError(f"{source} holds {CONFIG}, but neither {' nor '.join(WEIGHTS)}. Pass a whole folder.")

    reasons = what_no_clip_holds(config["model_cfg"])
    if reasons:
        if base is not None:
            raise ValueError(f"You passed a base for {source}, which no CLIPModel can hold. Leave it out.")
        folder = str(Path(config_file).parent)
        model = open_clip_model(folder, weights_file, config, str(source), reasons)
    else:
        model = _clip_described(source, config, read_weights(weights_file), base)
    model.config._commit_hash = source.commit(config_file)
    return model


def _clip_described(
    source: Source, config: dict[str, Any], weights: dict[str, torch.Tensor], base: CLIPModel | None
) -> CLIPModel:
    described = clip_config(config["model_cfg"])
    if base is not None:
        check_base_fits(described, base.config, str(source))
    if is_vision_tower(weights) and base is None:
        raise ValueError(
            f"{source} holds the vision tower alone, without the text tower beside it. Pass the model that it was "
            "trained from: --base ID, in Python base_model=ID."
        )
    model = CLIPModel(described)
    if base is not None:
        model.load_state_dict(base.state_dict())
    described.name_or_path = f"its {CONFIG}"
    load_weights(model, weights, str(source))
    model.name_or_path = model.config.name_or_path = source.name
    return model.eval()


def _processor_described(source: Source, config_file: str, other: str | None) -> Any:
    """The processor that an `open_clip_config.json` describes, with its own tokenizer or another's."""
    config = read_open_clip_config(config_file)
    reasons = what_no_clip_holds(config["model_cfg"])
    if reasons:
        return _processor_of_open_clip(source, config, other, reasons)

    described = clip_config(config["model_cfg"])
    images = image_processor_from(config["preprocess_cfg"], described.vision_config.image_size)
    length = described.text_config.max_position_embeddings
    if other is not None:
        theirs = _own_processor(Source.of(other))
        _check_statistics(images, theirs, source, other)
        tokenizer = tokenizer_of(theirs)
    else:
        tokenizer = _tokenizer_described(source, config["model_cfg"]["text_cfg"])
    if len(tokenizer) > described.text_config.vocab_size:
        raise ValueError(
            f"The tokenizer for {source} has {len(tokenizer)} tokens, but its {CONFIG} says "
            f"{described.text_config.vocab_size}. Pass its own: {HOW_TO_PASS}."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, length)
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def _processor_of_open_clip(source: Source, config: dict[str, Any], other: str | None, reasons: list[str]) -> Any:
    """The processor of what no `CLIPModel` can hold, with its own vocabulary or another's."""
    if other is None:
        named = config["model_cfg"]["text_cfg"].get("hf_tokenizer_name")  # without, open_clip takes CLIP's
        return open_clip_processor(_vocabulary(source, named) if named else None, config, str(source), reasons)
    processor = open_clip_processor(Source.of(other), config, str(source), reasons)
    _check_statistics(processor, _own_processor(Source.of(other)), source, other)
    return processor


def _tokenizer_described(source: Source, text_cfg: dict[str, Any]) -> Any:
    """The tokenizer beside a configuration, else the one that it names, else CLIP's own."""
    named = text_cfg.get("hf_tokenizer_name")
    if not named and text_cfg.get("vocab_size", CLIP_VOCABULARY) == CLIP_VOCABULARY:
        named = CLIP_TOKENIZER
    tokenizer = _vocabulary(source, named)
    if tokenizer is None:
        raise OSError(f"{source} holds no tokenizer, and has not CLIP's vocabulary. Pass one: {HOW_TO_PASS}.")
    try:
        return AutoTokenizer.from_pretrained(tokenizer.name, revision=tokenizer.revision, **NO_CODE)
    except (OSError, ValueError) as error:
        raise OSError(f"The tokenizer {tokenizer} for {source} cannot be had. Pass one: {HOW_TO_PASS}.") from error


def _vocabulary(source: Source, named: str | None) -> Source | None:
    """Where a tokenizer lies: beside a configuration, else under the name that this gives."""
    if any(source.find(file) for file in TOKENIZER_FILES):
        return Source(str(Path(source.find(CONFIG)).parent)) if source.is_file else source
    return Source.of(named) if named else None


def _check_statistics(images: Any, theirs: Any, source: Source, other: str) -> None:
    """Raises `ValueError` for pixel statistics that contradict those of an `open_clip_config.json`."""
    mean, std = pixel_statistics(images)
    if not hasattr(image_processor_of(theirs), "image_mean"):
        return  # a tokenizer
    their_mean, their_std = pixel_statistics(theirs)
    if any(abs(a - b) > 1e-3 for a, b in zip([*mean, *std], [*their_mean, *their_std], strict=True)):
        raise ValueError(
            f"The pixel statistics of {other} are {their_mean} and {their_std}, but {source} says {mean} and {std} in "
            f"its {CONFIG}. Pass a processor of these, or only a tokenizer."
        )
