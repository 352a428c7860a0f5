"""Open-vocabulary segmentation: images in [0,1] -> logits of every pixel over classes, by names alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..models.backbones import get_backbone, unwrap
from ..models.processors import pixel_statistics
from ..models.readouts import READOUTS, check_readout, patch_embeds
from ..modes import at_least_float32
from ..registry import check_count
from .text import ClassPrompts, encode_prompts


class Segmenter:
    """Images in [0,1], of one size -> logits of every pixel over classes, with a gradient to the images.

    A window of the model's size slides over the images. In each, cosines of patch tokens with the names of all
    classes are resized to its pixels (bilinear); where windows overlap, they are averaged. Softmax of `scale * cosine`
    over all names; a class is as likely as its likeliest name (SCLIP, arXiv 2312.01597).

    The logit of a class is the logarithm of this. Its largest is that of the likeliest class, and its cross-entropy is
    that over the likeliest name of each class; with one name per class, it is that of `scale * cosine`. A background
    without names has the logarithm of the threshold below which pixels are taken for it.

    Args:
        encode_patches (`Callable`): Normalised pixel values `[B,3,S,S]` -> patch tokens `[B,h,w,D]`, un-normalised.
        name_embeds (`torch.Tensor`): `[N,D]`, unit norm: the names of the first class, then of the second, and so on.
        num_names (`list[int]`): How many each class has; 0 for a background by threshold alone, which is class 0.
        image_mean, image_std (`list[float]`): The processor's statistics.
        window (`int`): S, the model's input size.
        readout (`str`): How `encode_patches` makes patch tokens, for the record.
        scale (`float`): What cosines are multiplied by.
        window_stride (`int`, *optional*): Pixels from window to window; half of one, as of SCLIP and ClearCLIP, if not
            given.
        background_threshold (`float`, *optional*): Pixels whose likeliest name is less likely are class 0.

    Raises:
        ValueError: for a stride that leaves pixels out, a threshold that is no probability, and classes without names.

    Example:
        >>> from types import SimpleNamespace
        >>> data = SimpleNamespace(
        ...     synonyms=[["red disc", "red"], ["green disc"]], prompt_templates=["a {}"], background_threshold=None
        ... )
        >>> segmenter = Segmenter.from_model(model, processor, data, readout="sclip")
        >>> scene = torch.cat([images[0], images[1]], dim=2).unsqueeze(0)
        >>> logits = segmenter(scene)
        >>> logits.shape, segmenter.predict(logits).shape
        (torch.Size([1, 2, 16, 32]), torch.Size([1, 16, 32]))
        >>> segmenter.describe()
        {'readout': 'sclip', 'scale': 40.0, 'window': 16, 'window_stride': 8}
    """

    def __init__(
        self,
        encode_patches: Callable[[torch.Tensor], torch.Tensor],
        name_embeds: torch.Tensor,
        num_names: Sequence[int],
        image_mean: Sequence[float],
        image_std: Sequence[float],
        window: int,
        readout: str,
        scale: float,
        window_stride: int | None = None,
        background_threshold: float | None = None,
    ):
        check_scale(scale)
        check_background(num_names, background_threshold)
        self.window_stride = check_stride(max(window // 2, 1) if window_stride is None else window_stride, window)
        self.encode_patches = encode_patches
        self.name_embeds = name_embeds
        self.num_names = list(num_names)
        self.window = window
        self.readout = readout
        self.scale = float(scale)
        self.background_threshold = background_threshold
        self.mean = torch.tensor(image_mean, device=name_embeds.device).view(1, -1, 1, 1)
        self.std = torch.tensor(image_std, device=name_embeds.device).view(1, -1, 1, 1)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        processor: Any,
        data: Any,
        readout: str,
        *,
        scale: float | None = None,
        window_stride: int | None = None,
        batch_size: int = 256,
    ) -> Segmenter:
        """The segmenter of a dual encoder for the classes of a set.

        Args:
            model (dual encoder or PEFT model): In eval mode.
            processor (`CLIPProcessor`): The model's.
            data (`SegmentationDataset`): Its `synonyms`, `prompt_templates` and `background_threshold` are used. Each
                name is encoded over all templates: unit norm, mean, unit norm.
            readout (`str`): One of `READOUTS`.
            scale (`float`, *optional*): That of the readout's authors if not given.
            window_stride (`int`, *optional*): Half a window if not given.
            batch_size (`int`): Prompts at once.

        Raises:
            ValueError: for a readout that the model has not, and what the constructor refuses.
        """
        check_readout(model, readout)
        num_names = [len(names) for names in data.synonyms]
        check_background(num_names, data.background_threshold)
        names = [name for names in data.synonyms for name in names]
        prompts = ClassPrompts.of(model, processor, names, data.prompt_templates)

        mean, std = pixel_statistics(processor)
        return cls(
            partial(patch_embeds, model, readout=readout),
            encode_prompts(model, prompts, batch_size),
            num_names,
            image_mean=mean,
            image_std=std,
            window=get_backbone(model).image_size(unwrap(model)),
            readout=readout,
            scale=READOUTS[readout].scale if scale is None else scale,
            window_stride=window_stride,
            background_threshold=data.background_threshold,
        )

    @property
    def device(self) -> torch.device:
        """The device on which images are taken."""
        return self.name_embeds.device

    @property
    def num_classes(self) -> int:
        """How many classes there are, the background among them."""
        return len(self.num_names)

    def describe(self) -> dict[str, Any]:
        """What figures depend on beside model and set, as reports record it."""
        return {
            "readout": self.readout,
            "scale": self.scale,
            "window": self.window,
            "window_stride": self.window_stride,
        }

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[B,K,H,W]` of images `[B,3,H,W]`, before any threshold; float32, or float64 as passed."""
        scores = (self.scale * self.cosines(images)).log_softmax(1)
        by_class = [of_names.amax(1) for of_names in scores.split([count for count in self.num_names if count], dim=1)]
        if not self.num_names[0]:
            by_class.insert(0, torch.full_like(by_class[0], math.log(self.background_threshold)))
        return torch.stack(by_class, dim=1)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Classes `[B,H,W]` by logits `[B,K,H,W]`; what is below the threshold is background, class 0."""
        top, classes = logits.max(1)
        if self.background_threshold is None:
            return classes
        return classes.where(top >= math.log(self.background_threshold), 0)

    def cosines(self, images: torch.Tensor) -> torch.Tensor:
        """Cosines `[B,N,H,W]` of the pixels of images with each of N names, averaged over windows.

        Raises:
            ValueError: for images with an edge shorter than a window.
        """
        tops, lefts = self._starts(images)
        corners = [(top, left) for top in tops for left in lefts]
        windows = torch.cat([self._cut(images, *corner) for corner in corners])
        of_windows = self._of_windows(windows).split(len(images))
        if len(corners) == 1:
            return of_windows[0]

        total = of_windows[0].new_zeros(*of_windows[0].shape[:2], *images.shape[-2:])
        count = total.new_zeros(images.shape[-2:])
        for corner, cosines in zip(corners, of_windows, strict=True):
            self._cut(total, *corner).add_(cosines)
            self._cut(count, *corner).add_(1)
        return total / count

    def _of_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Cosines `[B,N,S,S]` of the pixels of windows `[B,3,S,S]`."""
        pixel_values = (windows - self.mean.to(windows.dtype)) / self.std.to(windows.dtype)
        patches = at_least_float32(self.encode_patches(pixel_values))
        with torch.autocast(patches.device.type, enabled=False):
            cosines = F.normalize(patches, dim=-1) @ self.name_embeds.to(patches.dtype).T
            return F.interpolate(
                cosines.permute(0, 3, 1, 2), size=windows.shape[-2:], mode="bilinear", align_corners=False
            )

    def _cut(self, images: torch.Tensor, top: int, left: int) -> torch.Tensor:
        return images[..., top : top + self.window, left : left + self.window]

    def _starts(self, images: torch.Tensor) -> list[list[int]]:
        """The first rows, and the first columns, of all windows; the last ones end with the image."""
        height, width = images.shape[-2:]
        if min(height, width) < self.window:
            raise ValueError(
                f"You passed images of {height} x {width}, but the windows of the model are {self.window} x "
                f"{self.window}. Pass larger ones, such as by short_edge={self.window}."
            )
        stride = self.window_stride
        lasts = (height - self.window, width - self.window)
        return [[min(start, last) for start in range(0, last + stride, stride)] for last in lasts]


def check_scale(scale: float) -> None:
    """Raises `ValueError` for what cosines cannot be multiplied by.

    Example:
        >>> check_scale(40.0)
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise ValueError(f"You passed scale={scale!r}, by which no cosines can be told apart. Pass such as 40.")


def check_stride(window_stride: int, window: int) -> int:
    """Returns the pixels from window to window, or raises `ValueError` for a number that leaves pixels out.

    Example:
        >>> check_stride(8, window=16)
        8
        >>> check_stride(20, window=16)
        Traceback (most recent call last):
        ValueError: You passed window_stride=20, which leaves pixels out between windows of 16. Pass 16 or less.
    """
    window_stride = check_count("window_stride", window_stride)
    if window_stride > window:
        raise ValueError(
            f"You passed window_stride={window_stride}, which leaves pixels out between windows of {window}. Pass "
            f"{window} or less."
        )
    return window_stride


def check_background(num_names: Sequence[int], background_threshold: float | None) -> None:
    """Raises `ValueError` for classes without names, and a threshold that is no probability.

    Example:
        >>> check_background([0, 2, 1], background_threshold=0.1)
        >>> check_background([1, 0], background_threshold=None)
        Traceback (most recent call last):
        ValueError: Class 1 has no name, so that no pixel can be told to be of it. Pass one, ...
    """
    threshold = background_threshold
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 < threshold < 1):
        raise ValueError(f"You passed background_threshold={threshold!r}, which is no probability. Pass such as 0.1.")
    nameless = [number for number, count in enumerate(num_names) if not count]
    if nameless and (threshold is None or nameless != [0]):
        number = next(number for number in nameless if number or threshold is None)
        raise ValueError(
            f"Class {number} has no name, so that no pixel can be told to be of it. Pass one, or for the background, "
            "class 0, a background_threshold."
        )
