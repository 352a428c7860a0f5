"""Where the embedded default lies: a small CLIP of emoji, with the sets that it is trained and measured on."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
NAME = "emoji"  # of the embedded model and, with a configuration after it, of the sets


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


def find_embedded(text: str) -> str:
    """Turns `emoji` into the embedded model, `emoji:food@test` into an embedded set, and leaves other names alone.

    A file or folder of that name comes first.

    Example:
        >>> Path(find_embedded("emoji")).name, Path(find_embedded("emoji:food@test")).name
        ('model', 'data:food@test')
        >>> find_embedded("user/clip")
        'user/clip'
    """
    if text == NAME and not Path(NAME).exists():
        return str(emoji_folder() / "model")
    if text.startswith(f"{NAME}:") and not Path(NAME).exists():
        return f"{emoji_folder() / 'data'}{text.removeprefix(NAME)}"
    return text


def name_embedded(text: str) -> str:
    """The name by which [`find_embedded`] finds a model or set, if it is an embedded one.

    Example:
        >>> name_embedded(find_embedded("emoji:food@test")), name_embedded("user/clip")
        ('emoji:food@test', 'user/clip')
    """
    model, data = str(emoji_folder() / "model"), f"{emoji_folder() / 'data'}:"
    if text.startswith(data):
        return f"{NAME}:{text.removeprefix(data)}"
    return NAME if text == model else text
