"""Where the embedded default stands: a small CLIP, a LLaVA on it and image sets, which need no download."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def emoji_folder() -> Path:
    """The folder with `model`, `llava` and `data`, in an installed package as in a checkout.

    Raises:
        FileNotFoundError: if the package was copied without it.

    Example:
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> (emoji_folder() / "model" / "config.json").is_file()
        True
    """
    for folder in (_PACKAGE / "emoji", _PACKAGE.parent / "examples" / "emoji"):
        if (folder / "model").is_dir():
            return folder
    raise FileNotFoundError(
        f"The embedded model and sets are not in {_PACKAGE / 'emoji'}, so they cannot be used. Install the package "
        "again, or name a model and sets of your own."
    )
