"""Saved models by name: plain ones, peft adapters, and what another tuning attached to its base model."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPModel

from ..files import make_readable, save_tensors, write_whole
from ..models.backbones import check_encoder, unwrap_peft
from ..models.published import has_processor, is_whole, open_model, open_processor
from ..models.resolution import at_resolution
from ..models.sources import Source
from . import fold_into_clip, make_tuning, name_of, options_of
from .base import attachment_of
from .peft_adapter import without_old_names

CONFIG, WEIGHTS = "tuning.json", "tuning.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
TRAINING_CONFIG = "training_config.json"  # of a run, with the image size of the model that it trained
OBJECTIVE_PREFIX = "objective."  # of what an objective learns, which training keeps in the model


def save_weights(model: nn.Module, folder: str | os.PathLike, base_model: str | None) -> None:
    """Writes what [`load_model`] reads: a plain model, a peft adapter, or what a tuning attached to its base model.

    What an objective learned beside the model is no part of it, and left out.

    Args:
        model (`nn.Module`): Outside its engine, but inside its `PeftModel` if it has one.
        folder (`str` or `PathLike`): Made if need be.
        base_model (`str`, *optional*): Hub id or folder of the model that a tuning is attached to.

    Example:
        >>> save_weights(model, "robust", base_model=None)
        >>> type(load_model("robust")).__name__
        'CLIPModel'
    """
    is_plain = model is unwrap_peft(model)
    if attachment_of(model) is not None:
        save_tuning(model, folder, base_model)
    elif is_plain:
        state = model.state_dict()
        weights = {name: value for name, value in state.items() if not name.startswith(OBJECTIVE_PREFIX)}
        model.save_pretrained(folder, state_dict=weights)
    else:
        _save_adapter(model, Path(folder))
    make_readable(folder)


def _save_adapter(model: nn.Module, folder: Path) -> None:
    """Writes the adapters of a `PeftModel`; a single one into the folder itself, whatever its name."""
    # Else peft asks the Hub whether the base model's vocabulary has another size, which is no matter of adapters.
    model.save_pretrained(folder, save_embedding_layers=False)
    below = folder / next(iter(model.peft_config))
    if len(model.peft_config) == 1 and below.is_dir():  # where nothing would look for it
        for file in below.iterdir():
            file.replace(folder / file.name)
        below.rmdir()


def save_tuning(model: nn.Module, folder: str | os.PathLike, base_model: str | None) -> None:
    """Writes what a tuning attached to a model, and the name of the model that it is attached to.

    If that name is a folder's, the way there from here is written, so that both can be moved together and no path of
    a machine is told.

    Example:
        >>> tuned = make_tuning("text_context", {"num_tokens": 4}).prepare(model)
        >>> save_tuning(tuned, "context", base_model="openai/clip-vit-base-patch32")
        >>> sorted(os.listdir("context"))
        ['tuning.json', 'tuning.safetensors']
    """
    attachment = attachment_of(model)
    folder = Path(folder)
    if base_model is not None and Path(base_model).exists():
        base_model = os.path.relpath(base_model, folder)

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous() for name, value in attachment.state_dict().items()}
    save_tensors(state, folder / WEIGHTS)
    options = options_of(attachment.options)
    config = {"tuning": name_of(attachment.options), "options": options, "base_model": base_model}
    write_whole(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def load_tuning(model: nn.Module, folder: str | os.PathLike) -> None:
    """Reads what [`save_tuning`] wrote into a model that the same tuning has prepared.

    Example:
        >>> tuned = make_tuning("text_context", {"num_tokens": 4}).prepare(model)
        >>> save_tuning(tuned, "context", base_model=None)
        >>> load_tuning(tuned, "context")
    """
    attachment_of(model).load_state_dict(load_file(Path(folder) / WEIGHTS))


def _refusing_bad_weights(load: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    @functools.wraps(load)
    def checked(name: str, *args, **kwargs) -> nn.Module:
        try:
            return load(name, *args, **kwargs)
        except UnpicklingError as error:
            # Not torch's own message, which says how to load it all the same.
            raise OSError(
                f"The weights of {name!r} are a pickle of more than tensors, which could run any code when it is "
                "read. Nothing of it was run. Use a checkpoint in safetensors, or ask its author for one."
            ) from error
        except SafetensorError as error:
            raise OSError(
                f"The weights of {name!r} are no whole safetensors file ({error}). Download or save them again."
            ) from error

    return checked


@_refusing_bad_weights
def load_model(
    name: str | os.PathLike, base_model: nn.Module | str | None = None, *, revision: str | None = None
) -> nn.Module:
    """Loads a dual encoder, or an image encoder alone, in float32 by its name.

    No code of it is ever run. Besides what transformers saves, it takes what open_clip saves, and files of weights:
    whole models and vision towers alone, such as TeCoA's and FARE's. What open_clip alone can build is loaded for
    evaluation.

    Args:
        name (`str`): Hub id (`OWNER/NAME`, `OWNER/NAME@REVISION`), folder or file. A plain model, a peft adapter, or
            what a tuning saved beside its base model.
        base_model (*optional*): Of an adapter or tuning, in place of the one that it names; of weights without a
            configuration or of a vision tower alone, what they were trained from. Model, Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit of the Hub.

    Raises:
        OSError: if there is no such model, its base is not where it was, or its weights are damaged or a pickle of
            more than tensors.
        ValueError: if it is a model of its own code, its weights are not those of its configuration or base, or the
            base is missing or of no use.

    Example:
        >>> model.save_pretrained("robust")
        >>> robust = load_model("robust")
        >>> type(robust).__name__, robust.dtype
        ('CLIPModel', torch.float32)
    """
    source = Source.of(name, revision)
    file = _find_beside(source, CONFIG)
    if file is not None:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        base = _base(source, base_model, config["base_model"])
        model = make_tuning(config["tuning"], config["options"]).prepare(base)
        attachment_of(model).load_state_dict(load_file(source.find(WEIGHTS)))
        return model.eval()

    file = _find_beside(source, ADAPTER_CONFIG)
    if file is not None:
        from peft import PeftConfig, PeftModel

        config = json.loads(Path(file).read_text(encoding="utf-8"))
        base = _base(source, base_model, config["base_model_name_or_path"])
        # With a task type peft would put another model around this one, whose forward takes texts alone.
        adapter = PeftConfig.from_pretrained(source.name, revision=source.revision)
        adapter.task_type = None
        with without_old_names():
            return PeftModel.from_pretrained(base, source.name, config=adapter, revision=source.revision)

    return open_model(source, None if base_model is None else _plain_clip(base_model))


def load_processor(
    name: str | os.PathLike,
    processor: str | None = None,
    base_model: str | None = None,
    *,
    revision: str | None = None,
) -> Any:
    """Loads the processor of a model by the model's name.

    Args:
        name (`str`): Of the model, as in [`load_model`].
        processor (`str`, *optional*): Hub id or folder to take it from, where the model has none.
        base_model (`str`, *optional*): The model that a checkpoint was trained from, whose processor is its own.
        revision (`str`, *optional*): Branch, tag or commit of the Hub.

    Raises:
        OSError: if it has none, and none was passed.
        ValueError: if what was passed contradicts its `open_clip_config.json`.

    Example:
        >>> _ = processor.save_pretrained("robust")
        >>> type(load_processor("robust")).__name__
        'CLIPProcessor'
    """
    return open_processor(Source.of(name, revision), processor, base_model)


def load_pair(
    model: nn.Module | str | os.PathLike,
    processor: Any = None,
    base_model: str | None = None,
    *,
    revision: str | None = None,
) -> tuple[nn.Module, Any]:
    """A model and its processor, each loaded if it is a name, or, of the processor, not given.

    Raises:
        OSError, ValueError: as [`load_model`] and [`load_processor`] do.
    """
    if not isinstance(model, (str, os.PathLike)):
        return model, processor
    loaded = load_model(model, base_model, revision=revision)
    check_encoder(loaded)
    if processor is None or isinstance(processor, str):
        processor = load_processor(model, processor, base_model, revision=revision)
    return loaded, processor


def load_one_of_several(
    name: str | os.PathLike, processor: str | None = None, base_model: str | None = None
) -> tuple[nn.Module, Any]:
    """A model and its processor, where what was passed beside it is for those of several models that lack it.

    Example:
        >>> model.save_pretrained("robust")
        >>> _ = processor.save_pretrained("robust")
        >>> loaded, _ = load_one_of_several("robust", base_model="openai/clip-vit-large-patch14")
        >>> type(loaded).__name__
        'CLIPModel'
    """
    own = has_processor(Source.of(name))
    return load_pair(name, None if own else processor, base_model if needs_base(name) else None)


def needs_base(name: str | os.PathLike) -> bool:
    """Whether a name leads to a checkpoint that does not open without the model that it was trained from.

    Example:
        >>> model.save_pretrained("robust")
        >>> needs_base("robust"), needs_base("robust/model.safetensors")
        (False, True)
    """
    source = Source.of(name)
    is_tuned = any(_find_beside(source, file) for file in (CONFIG, ADAPTER_CONFIG))
    return not is_tuned and not is_whole(source)


def _base(source: Source, base_model: nn.Module | str | None, recorded: str | None) -> nn.Module:
    """The model to which a saved tuning or adapter belongs: the user's, or the one that was recorded with it."""
    base_model = base_model or recorded
    if base_model is None:
        raise ValueError(f"{source} does not name the model that it was trained beside. Pass `base_model`.")
    if base_model is recorded and source.is_local and (Path(source.name) / recorded).exists():
        base_model = str(Path(source.name) / recorded)
    if isinstance(base_model, (str, os.PathLike)):
        try:
            base_model = open_model(Source.of(base_model))
        except ValueError as error:
            raise ValueError(
                f"{source} was trained beside {base_model}, which does not open by its name alone: {error} What was "
                "trained beside it needs that very model: pass it as `base_model`, loaded or converted."
            ) from error

    # It was trained at this size, which may be another than its base's.
    file = source.find(TRAINING_CONFIG)
    size = None if file is None else json.loads(Path(file).read_text(encoding="utf-8")).get("image_size")
    return base_model if size is None else at_resolution(base_model, None, size)[0]


def _plain_clip(base_model: nn.Module | str) -> CLIPModel:
    """The `CLIPModel` that a published checkpoint was trained from, with what was trained beside it folded in."""
    base = load_model(base_model) if isinstance(base_model, (str, os.PathLike)) else base_model
    base = fold_into_clip(base)
    if not isinstance(base, CLIPModel):
        raise TypeError(
            f"You passed a {type(base).__name__} as the base, but checkpoints of others are read into a CLIPModel. "
            "Pass one."
        )
    return base


def _find_beside(source: Source, file: str) -> str | None:
    """What this package or peft wrote into a folder or repository; nothing beside a file of weights."""
    return None if source.is_file else source.find(file)
