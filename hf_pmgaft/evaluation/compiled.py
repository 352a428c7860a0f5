"""The image encoder of an evaluation, compiled once, for batches of one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..attacks.spec import AttackSpec
from ..compilation import COMPILE_MODES, CUDA_GRAPHS, check_compiler
from ..models.backbones import get_encoder, unwrap
from ..models.lean import lean_forwards, replaced
from ..registry import check_choice


def check_compile(mode: str | None, device: torch.device, attacks: Sequence[AttackSpec]) -> None:
    """Raises `ValueError` for an unknown mode of torch.compile, where it cannot work, or for an attack that it cannot
    serve.

    Example:
        >>> check_compile("fast", torch.device("cpu"), [])
        Traceback (most recent call last):
        ValueError: There is no compile 'fast'. Choose one of ['default', 'max-autotune', ...
    """
    if mode is None:
        return
    check_choice("compile", mode, COMPILE_MODES)
    if any(spec.attack == "fab" for spec in attacks):
        raise ValueError(
            f"You passed compile={mode!r} with fab, which takes several gradients of one pass, while compiled code "
            "gives one. Leave compile out, or attack by fab_t."
        )
    check_compiler("compile", device.type)
    try:
        torch.compile(nn.Identity())
    except RuntimeError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"You passed compile={mode!r}, but torch {torch.__version__} cannot compile here: {reason}. Leave compile "
            "out."
        ) from error


class CompiledEncoder:
    """Normalised pixel values `[B,3,H,W]` -> embeddings `[B,D]`, by code that is compiled at the first passes.

    Every batch is filled up to one size, so that its shape never changes, and what was filled in is cut off again.
    The values are those of the model to round-off. Larger batches are encoded as ever.

    Args:
        model (`nn.Module`): Frozen and in eval mode, for as long as this is called.
        mode (`str`): One of `COMPILE_MODES`.
        size (`int`): Images of a batch.

    Example:
        >>> from hf_pmgaft.modes import frozen
        >>> with frozen(model):
        ...     encode_image = CompiledEncoder(model, "default", size=16)  # nothing is compiled yet
        >>> encode_image.size
        16
    """

    def __init__(self, model: nn.Module, mode: str, size: int):
        self.model = model
        self.size = size
        self.backbone = get_encoder(model)
        self.has_cuda_graphs = mode in CUDA_GRAPHS
        # Found once: what is compiled is compiled for these very functions.
        self._forwards = lean_forwards(model, unwrap(model))
        self._compiled = torch.compile(self._encode, mode=mode, dynamic=False)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        missing = self.size - len(pixel_values)
        if missing < 0:
            return self._encode(pixel_values)
        if missing:
            filling = pixel_values[-1:].detach().expand(missing, -1, -1, -1)
            pixel_values = torch.cat([pixel_values, filling])

        # Embeddings of the pass before may be written over from here on, and so are copied below.
        if self.has_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with replaced(self._forwards):
            embeds = self._compiled(pixel_values)
        return embeds[: self.size - missing].clone()

    def _encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.backbone.image_embeds_as_is(self.model, pixel_values)
