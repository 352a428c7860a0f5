"""The frozen guide that an objective compares the student with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ..models.backbones import get_encoder
from ..tuning import keeps_weights, without_tuning
from ..zero_shot.classifier import ZeroShotClassifier


class Teacher:
    """A frozen image tower that takes no part in training, or the student itself with its tuning switched off.

    Args:
        tower (`nn.Module`, *optional*): Pixel values `[B,3,H,W]` -> embeddings `[B,D]`; the student if not given.
        autocast (`Callable`): Makes the context of mixed precision in which the tower computes, as training does.

    Example:
        >>> teacher = Teacher.of(None, model)
        >>> teacher.encode(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 24])
    """

    def __init__(
        self,
        tower: nn.Module | None,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self.tower = tower
        self.autocast = autocast
        self.student: nn.Module | None = None

    @classmethod
    def of(cls, model: nn.Module | None, student: nn.Module) -> Teacher:
        """The image tower of a given model, copied; of the student as it is now, if none is given.

        Where the tuning leaves the student's own weights as they are, it needs no copy.
        """
        if model is not None:
            return cls(get_encoder(model).vision_copy(model))
        if keeps_weights(student):
            return cls(None)
        return cls(get_encoder(student).vision_copy(student))

    @property
    def is_student(self) -> bool:
        """Whether the teacher is the student with its tuning off, without weights of its own."""
        return self.tower is None

    def to(self, device: torch.device) -> None:
        """Moves the tower, if there is one."""
        if self.tower is not None:
            self.tower.to(device)

    def classifier(self, head: ZeroShotClassifier) -> ZeroShotClassifier:
        """The teacher with a head; its passes keep no graph."""
        return head.by(self.encode, partial(self.encode, patches=True))

    @torch.no_grad()
    def encode(self, pixel_values: torch.Tensor, patches: bool = False):
        """Embeddings `[B,D]` of pixel values, with `patches` also the patch tokens `[B,h,w,D]`."""
        # The attack may ask in a precision of its own; the loss gets what is kept of this pass.
        with torch.autocast(pixel_values.device.type, enabled=False):
            if self.tower is not None:
                with self.autocast():
                    return self.tower.with_patches(pixel_values) if patches else self.tower(pixel_values)

            backbone = get_encoder(self.student)
            encode = backbone.image_and_patch_embeds if patches else backbone.image_embeds
            with without_tuning(self.student):
                return encode(self.student, pixel_values)
