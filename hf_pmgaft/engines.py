"""All that mixed precision, DDP, DeepSpeed and FSDP need to know; nothing engine-specific stands elsewhere."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def prepare_for_engines(model: nn.Module) -> None:
    """Makes a plain dual encoder one that every engine can hold, in place, with the same checkpoint keys.

    The 0-dimensional `logit_scale` parameter, which DeepSpeed and FSDP2 refuse, becomes a persistent buffer of the
    same name; it is frozen in any case. FSDP2's preparation asks for input embeddings, which a dual encoder has not.
    """
    if "logit_scale" in model._parameters:
        value = model._parameters.pop("logit_scale").detach().clone()
        model.register_buffer("logit_scale", value, persistent=True)
    model.get_input_embeddings = lambda: None


def broadcast_buffers() -> bool | None:
    """What DDP is told about writing buffers before each pass; `None` leaves it alone.

    Older torch then refuses the backward pass of a step of several passes. Newer torch minds that by itself, and warns
    of the option.
    """
    minds = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return None if minds else False


@contextlib.contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Runs a model without the autocast that Accelerate put into the instance's `forward`; then puts it back."""
    original, wrapped = getattr(model, "_original_forward", None), model.__dict__.get("forward")
    replace = original is not None and wrapped is not None
    if replace:
        model.forward = original
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        if replace:
            model.forward = wrapped


def process_share() -> tuple[int, int]:
    """This process's number and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(values: list) -> list:
    """The lists of all processes joined, on every process."""
    rank, count = process_share()
    if count == 1:
        return values
    parts: list = [None] * count
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]
