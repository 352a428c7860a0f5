"""Saved models by name: plain ones, peft adapters, and what another tuning attached to its base model."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import cached_file

from ..files import make_readable, save_tensors
from ..models.backbones import ENCODERS, unwrap_peft
from ..models.resolution import at_resolution
from . import make_tuning, name_of, options_of
from .base import attachment_of

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
        model.save_pretrained(folder)
    make_readable(folder)


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
    if base_model is not None and Path(base_model).is_dir():
        base_model = os.path.relpath(base_model, folder)

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous() for name, value in attachment.state_dict().items()}
    save_tensors(state, folder / WEIGHTS)
    options = options_of(attachment.options)
    config = {"tuning": name_of(attachment.options), "options": options, "base_model": base_model}
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


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
def load_model(name: str, base_model: nn.Module | str | None = None) -> nn.Module:
    """Loads a dual encoder, or an image encoder alone, in float32 by its Hub id or folder.

    No code of it is ever run.

    Args:
        name (`str`): A plain model, a peft adapter, or what a tuning saved beside its base model.
        base_model (*optional*): Of an adapter or tuning, in place of the one that it names; model, Hub id or folder.

    Raises:
        OSError: if there is no such model, its base is not where it was, or its weights are damaged or a pickle of
            more than tensors.
        ValueError: if it is a model of its own code.

    Example:
        >>> model.save_pretrained("robust")
        >>> robust = load_model("robust")
        >>> type(robust).__name__, robust.dtype
        ('CLIPModel', torch.float32)
    """
    file = _find_file(name, CONFIG)
    if file is not None:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        base = _base(name, base_model, config["base_model"])
        model = make_tuning(config["tuning"], config["options"]).prepare(base)
        attachment_of(model).load_state_dict(load_file(_find_file(name, WEIGHTS)))
        return model.eval()

    file = _find_file(name, ADAPTER_CONFIG)
    if file is not None:
        from peft import PeftConfig, PeftModel

        config = json.loads(Path(file).read_text(encoding="utf-8"))
        base = _base(name, base_model, config["base_model_name_or_path"])
        # With a task type peft would put another model around this one, whose forward takes texts alone.
        adapter = PeftConfig.from_pretrained(name)
        adapter.task_type = None
        return PeftModel.from_pretrained(base, name, config=adapter)

    return _plain_model(name)


def load_pair(model: nn.Module | str | os.PathLike, processor: Any = None) -> tuple[nn.Module, Any]:
    """A model and its processor, each loaded if the model is a name and the processor is not given."""
    if not isinstance(model, str | os.PathLike):
        return model, processor
    model = os.fspath(model)
    return load_model(model), processor or AutoProcessor.from_pretrained(model, trust_remote_code=False)


def _base(name: str, base_model: nn.Module | str | None, recorded: str | None) -> nn.Module:
    """The model to which a saved tuning or adapter belongs: the user's, or the one that was recorded with it."""
    base_model = base_model or recorded
    if base_model is None:
        raise ValueError(f"{name} does not name the model that it was trained beside. Pass `base_model`.")
    if base_model is recorded and (Path(name) / recorded).is_dir():
        base_model = str(Path(name) / recorded)
    if isinstance(base_model, str):
        base_model = _plain_model(base_model)

    # It was trained at this size, which may be another than its base's.
    file = _find_file(name, TRAINING_CONFIG)
    size = None if file is None else json.loads(Path(file).read_text(encoding="utf-8")).get("image_size")
    return base_model if size is None else at_resolution(base_model, None, size)[0]


def _plain_model(name: str) -> nn.Module:
    # Said aloud, since transformers would ask on the terminal whether to run a repository's code.
    no_code = {"trust_remote_code": False}
    # AutoModel would leave out the projection of a vision tower that was saved with it.
    saved_as = AutoConfig.from_pretrained(name, **no_code).architectures or ()
    encoder = next((kind for kind in saved_as if kind in ENCODERS), None)
    loader = AutoModel if encoder is None else getattr(transformers, encoder)
    return loader.from_pretrained(name, dtype=torch.float32, **no_code)


def _find_file(name: str, file: str) -> str | None:
    return cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
