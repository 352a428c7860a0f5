"""Image sets by the text that names them on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_set(text: str) -> tuple[Any, str]:
    """Opens a set `NAME[:config][@split]`, and says how reports call it: by its configuration, or else its file.

    Returns:
        `tuple`: The data set, and the name.
    """
    from ..data.sources import load_images, parse_set

    path, config, split = parse_set(text)
    return load_images(path, config, split), config or Path(path).stem
