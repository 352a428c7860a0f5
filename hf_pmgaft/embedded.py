"""Where the embedded default lies: a small CLIP of emoji, with the sets that it is trained and measured on."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def emoji_folder() -> Path:
    """Finds the folder with the embedded model and its data, in a checkout or in an installed package.

    Returns:
        `Path`: A folder with `model/` (a `CLIPModel` with its processor) and `data/` (a set with a configuration for
            each group of emoji).

    Raises:
        FileNotFoundError: if the package was installed without it.

    Example:
        >>> sorted(path.name for path in (emoji_folder() / "data").glob("a*"))
        ['activities', 'animals']
    """
    # A checkout, an editable install or an unpacked source distribution; then a wheel.
    candidates = (PACKAGE.parent / "examples" / "emoji", PACKAGE / "emoji")
    for folder in candidates:
        if (folder / "model" / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"You asked for the embedded default, but neither {candidates[0]} nor {candidates[1]} holds its model. "
        "Install the package again from its wheel or repository, or pass a model and data sets of your own."
    )
