"""How images in [0,1] become what a vision-language model takes, with a gradient: of the tower's size or a file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..models.processors import pixel_statistics
from .families import Family, image_processor_of_torchvision
from .towers import vision_tower

# What decides on the scale of images, which is the package's.
SCALE = {"do_rescale", "rescale_factor", "input_data_format", "return_tensors", "device"}
# Height and width that stand for an image's where none is known yet.
USUAL_SIZE = (224, 224)


class TowerPixels:
    """Images of the tower's size, which the package normalises itself: those of a CLIP or SigLIP.

    Args:
        model (`nn.Module`): A model on such a tower.
        processor: Its statistics are taken, and it makes the images of files.

    Attributes:
        reader: Makes images in [0,1] of files, for [`ImageRows`].
        image_size (`int`): Edge of the images, in pixels.
        usual_size (`tuple[int, int]`): Their height and width.
    """

    def __init__(self, model: nn.Module, processor: Any):
        mean, std = pixel_statistics(processor)
        self.mean = torch.tensor(mean, device=model.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=model.device).view(1, -1, 1, 1)
        self.reader = processor
        self.image_size = vision_tower(model).config.image_size
        self.usual_size = (self.image_size, self.image_size)

    def check_size(self, images: torch.Tensor) -> None:
        """Raises `ValueError` for images of another size than the tower's."""
        edge = self.image_size
        if images.shape[1:] != (3, edge, edge):
            raise ValueError(
                f"You passed images of shape {tuple(images.shape)}; the model takes [B,3,{edge},{edge}] in [0,1]. "
                "Resize them."
            )

    def as_judged(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the verdict takes them: as they are."""
        return images

    def inputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the model is told of images `[B,3,H,W]` in [0,1], with a gradient."""
        return {"pixel_values": (images - self.mean) / self.std}

    def described(self) -> dict[str, Any]:
        """What a report says of them."""
        return {"attacked_at": self.image_size}


class FilePixels:
    """Images of the file's size, all of one in a batch, through the graph of a family's own processor.

    Attacks go through floating point numbers. They differ from the 8 bits of a file by what a resize rounds and clips,
    so that the verdict is on 8 bits, made by the same processor.

    Args:
        family (`Family`): The row of the model.
        processor: Its image processor is torchvision's kind.
        image_options (`dict`): Options of the image processor in place of its own.

    Attributes:
        reader: Makes images in [0,1] of files, for [`ImageRows`].
        image_size: `None`, since images have any size.
        usual_size (`tuple[int, int]`): Stands for an image's height and width where none is known yet.

    Raises:
        TypeError: if the image processor is of another kind.
        ValueError: if it has no such option.
    """

    image_size = None
    usual_size = USUAL_SIZE

    def __init__(self, family: Family, processor: Any, image_options: Mapping[str, Any]):
        self.family = family
        self.image_processor = image_processor_of_torchvision(processor)
        _check_options(self.image_processor, image_options)
        # The whole processor passes on its own ones.
        self.options = {**getattr(processor, "images_kwargs", {}), **image_options}
        self.reader = FileReader()
        self._layouts: dict[tuple[int, int], dict[str, torch.Tensor]] = {}

    def check_size(self, images: torch.Tensor) -> None:
        """Raises `ValueError` for what is no batch of images of one size."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"You passed images of shape {tuple(images.shape)}; the model takes [B,3,H,W] in [0,1], all of one "
                "size. Convert them."
            )

    def as_judged(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the verdict takes them: of 8 bits, as a file's."""
        return (images * 255).round().to(torch.uint8)

    def inputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the model is told of images `[B,3,H,W]`, in [0,1] with a gradient, or of 8 bits.

        Raises:
            RuntimeError: if tiles or tokens of an image depend on its content, since its prompt was made by its size.
        """
        made = self._processed(images if images.dtype == torch.uint8 else images * 255)
        for name, of_one in self._layout(images.shape[-2:]).items():
            wanted = (len(images) * len(of_one), *of_one.shape[1:])
            is_same = made[name].shape == wanted
            if is_same and name != "pixel_values":
                is_same = torch.equal(made[name].cpu(), of_one.expand(wanted))
            if not is_same:
                raise RuntimeError(
                    f"The {type(self.image_processor).__name__} cuts up images of {tuple(images.shape[-2:])} pixels "
                    f"by their content ({name}), so that one under attack would leave its prompt. Pass the family's "
                    "own processor."
                )
        return {name: value.to(images.device) for name, value in made.items()}

    def described(self) -> dict[str, Any]:
        """What a report says of them. Resampling may be another on a GPU, which is another threat."""
        return {
            "attacked_at": "the file's size",
            "image_processor": type(self.image_processor).__name__,
            "options": {name: self.options[name] for name in sorted(self.options)},
        }

    def _layout(self, size: Sequence[int]) -> dict[str, torch.Tensor]:
        """What is made of a black image of that height and width: how an image is cut up, but for its content."""
        size = tuple(size)
        if size not in self._layouts:
            self._layouts[size] = self._processed(torch.zeros((1, 3, *size), dtype=torch.uint8))
        return self._layouts[size]

    def _processed(self, levels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixel values and what follows from the size, of images in levels from 0 to 255."""
        images = [[image] for image in levels] if self.family.one_each else list(levels)
        made = self.image_processor(images, return_tensors="pt", input_data_format="channels_first", **self.options)
        return {name: made[name] for name in ("pixel_values", *self.family.by_size)}


def check_no_options(image_options: Mapping[str, Any]) -> None:
    """Raises `ValueError` for options of an image processor that makes no pixel values."""
    if image_options:
        raise ValueError(
            f"You passed the image options {dict(image_options)}, but images come at the tower's size, where they "
            "have no effect. Leave them out."
        )


def _check_options(image_processor: Any, image_options: Mapping[str, Any]) -> None:
    known = sorted({*image_processor.valid_kwargs.__annotations__} - SCALE)
    unknown = [name for name in image_options if name not in known]
    if unknown:
        raise ValueError(
            f"You passed the image options {unknown}, but a {type(image_processor).__name__} has none of these to "
            f"set. Choose from {known}."
        )


class FileReader:
    """Makes images `[3,H,W]` in [0,1] of files, at their own size: an image processor that changes nothing.

    Example:
        >>> reader = FileReader()
        >>> reader(images=Image.new("RGB", (6, 4), "white"))["pixel_values"][0].shape
        torch.Size([3, 4, 6])
    """

    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = False

    def __call__(self, images: Image.Image, **options: Any) -> dict[str, list[torch.Tensor]]:
        levels = torch.from_numpy(np.array(images.convert("RGB"))).permute(2, 0, 1)
        return {"pixel_values": [levels / 255]}
