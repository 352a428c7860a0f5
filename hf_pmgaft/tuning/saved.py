"""Saved models by name: plain ones, peft adapters, and what another tuning learned beside its base model."""

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
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import cached_file

from ..models.backbones import ENCODERS, unwrap_peft
from ..models.resolution import at_resolution
from . import make_tuning, name_of, options_of
from .base import attachment

CONFIG, WEIGHTS = "tuning.json", "tuning.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
TRAINING_CONFIG = "training_config.json"  # of a run, with the image size of the model that it trained


def save_tuning(model: nn.Module, folder: str | os.PathLike, base_model: str | None) -> None:
    """Writes what a tuning added to a model, and the name of the model that it was added to; of a folder the way there
    from here, so that both can be moved together and no path of a machine is told."""
    added, folder = attachment(unwrap_peft(model)), Path(folder)
    if base_model is not None and Path(base_model).is_dir():
        base_model = os.path.relpath(base_model, folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().contiguous() for name, value in added.state_dict().items()}, folder / WEIGHTS)
    config = {"tuning": name_of(added.options), "options": options_of(added.options), "base_model": base_model}
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def save_weights(model: nn.Module, folder: str | os.PathLike, base_model: str | None) -> None:
    """Writes a model as `load_model` opens it: whole, or what an adapter or another tuning added to `base_model`."""
    if attachment(unwrap_peft(model)) is not None:
        save_tuning(model, folder, base_model)
    elif model is unwrap_peft(model):
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("objective.")}
        model.save_pretrained(folder, state_dict=weights)
    else:
        model.save_pretrained(folder)


def load_tuning(model: nn.Module, folder: str | os.PathLike) -> None:
    """Reads back, into a model prepared alike, what was saved."""
    attachment(unwrap_peft(model)).load_state_dict(load_file(Path(folder) / WEIGHTS))


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
    """A dual encoder, or an image encoder alone, in float32 by its Hub id or folder. No code of it is ever run.

    Args:
        name (`str`): A plain model, a peft adapter, or what a tuning saved beside its base model.
        base_model (*optional*): Of an adapter or tuning, in place of the one that it names; model, Hub id or folder.

    Raises:
        OSError: if there is no such model, its base is not where it was, or its weights are damaged or a pickle of
            more than tensors.
        ValueError: if it is a model of its own code.
    """
    if (file := _find(name, CONFIG)) is not None:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        model = make_tuning(config["tuning"], config["options"]).prepare(_base(name, base_model, config["base_model"]))
        attachment(model).load_state_dict(load_file(_find(name, WEIGHTS)))
        return model.eval()
    if (file := _find(name, ADAPTER_CONFIG)) is not None:
        from peft import PeftModel

        config = json.loads(Path(file).read_text(encoding="utf-8"))
        return PeftModel.from_pretrained(_base(name, base_model, config["base_model_name_or_path"]), name)
    return _plain_model(name)


def load_pair(model: nn.Module | str, processor: Any = None) -> tuple[nn.Module, Any]:
    """A model and its processor, each loaded if the model is a name and the processor is not given."""
    if not isinstance(model, str):
        return model, processor
    return load_model(model), processor or AutoProcessor.from_pretrained(model, trust_remote_code=False)


def _base(name: str, given: nn.Module | str | None, named: str | None) -> nn.Module:
    base_model = given or named
    if base_model is None:
        raise ValueError(f"{name} does not name the model that it was trained beside. Pass `base_model`.")
    if base_model is named and (Path(name) / named).is_dir():
        base_model = str(Path(name) / named)
    base_model = _plain_model(base_model) if isinstance(base_model, str) else base_model
    file = _find(name, TRAINING_CONFIG)
    size = None if file is None else json.loads(Path(file).read_text(encoding="utf-8")).get("image_size")
    return base_model if size is None else at_resolution(base_model, None, size)[0]


def _plain_model(name: str) -> nn.Module:
    # Said aloud, since transformers would ask on the terminal whether to run a repository's code.
    own = {"trust_remote_code": False}
    # AutoModel would leave out the projection of a vision tower that was saved with it.
    saved_as = AutoConfig.from_pretrained(name, **own).architectures or ()
    encoder = next((kind for kind in saved_as if kind in ENCODERS), None)
    loader = AutoModel if encoder is None else getattr(transformers, encoder)
    return loader.from_pretrained(name, dtype=torch.float32, **own)


def _find(name: str, file: str) -> str | None:
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(name, file, **quiet, _raise_exceptions_for_gated_repo=False)
