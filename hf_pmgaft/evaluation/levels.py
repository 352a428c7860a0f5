"""Images as 8-bit levels where the way back is exact: a quarter of the room, and the same image bit for bit."""

from __future__ import annotations

import torch

# The float of each level, `[2,256]`: NumPy and Pillow processors divide by 255, torchvision's multiply by the float
# nearest to 1/255. They are looked up, since no device computes them in a way of its own then.
_LEVELS = torch.arange(256, dtype=torch.uint8)
TABLES = torch.stack([_LEVELS.float() / 255, _LEVELS * (1 / 255)])


def to_levels(image: torch.Tensor) -> tuple[torch.Tensor, int] | None:
    """The 8-bit levels of a float32 image and the number of the table that leads back to every bit of it.

    It is `None` if no table does: for images that were resized as floats, for example.

    Example:
        >>> levels, table = to_levels(torch.tensor([0.0, 1.0, 0.2]))
        >>> levels, table
        (tensor([  0, 255,  51], dtype=torch.uint8), 0)
        >>> to_levels(torch.tensor([0.0, 1.0, 0.2001])) is None
        True
    """
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    for number in range(len(TABLES)):
        if _is_same_to_the_bit(to_floats(levels, torch.tensor(number)), image):
            return levels, number
    return None


def to_floats(levels: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """The float32 values of levels, on their device.

    Args:
        levels (`torch.Tensor`): Of 8 bits, `[B,3,H,W]` or of one image `[3,H,W]`.
        tables (`torch.Tensor`): The numbers of their tables, `[B]` or of one image `[]`.

    Example:
        >>> to_floats(torch.tensor([0, 255, 51], dtype=torch.uint8), torch.tensor(0))
        tensor([0.0000, 1.0000, 0.2000])
    """
    places = tables.int() * TABLES.shape[1]
    places = places.reshape(tables.shape + (1,) * (levels.ndim - tables.ndim)) + levels
    values = TABLES.to(levels.device).flatten()
    return values.index_select(0, places.flatten()).view(levels.shape)


def _is_same_to_the_bit(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two float32 tensors are the same, -0.0 not being 0.0."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
