"""What the operator of a page decides: its models, its sets, and how much a visitor may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..embedded import PACKAGE, find_embedded
from ..registry import check_count
from ..short_names import short_names

GROUPS = ("food", "animals", "smileys", "travel", "activities", "objects", "symbols", "flags")
EMOJI_TEMPLATE = "an emoji of {}"
EMBEDDED, ROBUST = "embedded CLIP", "embedded CLIP, robust"
MB = 10**6


@dataclass(frozen=True)
class Settings:
    """The models and sets of a page, and its limits.

    Args:
        models (`list[str]`): Hub ids, folders or files of CLIPs; the embedded one if empty, with the robust one that
            `pmgaft train` has made of it here, if it has.
        processor, base (`str`, *optional*): For those that have no processor, or hold weights alone or one tower.
        eval_sets (`list[str]`): Sets to draw images from, each known (`dtd`, ...) or
            `NAME[:config][@split][#revision]`; the embedded ones if empty.
        prompt_template (`str`, *optional*): How class names become prompts, in place of what the sets bring.
        max_steps (`int`): The most steps of an attack.
        max_classes (`int`): The most class names.
        max_pixels (`int`): The most pixels of an image.
        max_upload (`int`): The most bytes of a file.
        shows_paths (`bool`): Whether the command that a visitor is shown names local models and sets by their places
            on this machine, so that it runs here, or by the names that the page gives them.

    Raises:
        ValueError: for a limit that is none, and for a model that is named twice.

    Example:
        >>> settings = Settings(models=["openai/clip-vit-base-patch32", "outputs/clip-pmgaft"])
        >>> list(settings.places), settings.max_steps
        (['openai/clip-vit-base-patch32', 'outputs/clip-pmgaft'], 200)
    """

    models: Sequence[str] = ()
    processor: str | None = None
    base: str | None = None
    eval_sets: Sequence[str] = ()
    prompt_template: str | None = None
    max_steps: int = 200
    max_classes: int = 1000
    max_pixels: int = 25 * MB
    max_upload: int = 32 * MB
    shows_paths: bool = True

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_classes", "max_pixels", "max_upload"):
            check_count(name, getattr(self, name))
        if self.max_classes < 2:
            raise ValueError("You passed max_classes=1, but an image is told apart by two or more. Pass 2 or more.")
        short_names("model", self.models)

    @property
    def places(self) -> Mapping[str, str]:
        """Where each model is, by the name that the page gives it."""
        if self.models:
            places = [find_embedded(model) for model in self.models]
            return dict(zip(short_names("model", places), places, strict=True))
        places = {EMBEDDED: find_embedded("emoji")}
        robust = robust_folder()
        if robust.joinpath("config.json").is_file() and robust.joinpath("model.safetensors").is_file():
            places[ROBUST] = str(robust)
        return places

    @property
    def told_places(self) -> Sequence[str]:
        """The models as a visitor is told of them."""
        if self.shows_paths:
            return list(self.places.values())
        emoji = find_embedded("emoji")
        return [place if place == emoji or not Path(place).exists() else name for name, place in self.places.items()]

    @property
    def set_texts(self) -> Sequence[str]:
        """The sets to draw from, each as `load_set` takes it."""
        return [find_embedded(text) for text in self.eval_sets or [f"emoji:{group}@test" for group in GROUPS]]

    @property
    def template(self) -> str | None:
        """How class names become prompts, if not as the sets have it."""
        if self.prompt_template is None and not self.eval_sets:
            return EMOJI_TEMPLATE
        return self.prompt_template


def robust_folder() -> Path:
    """Where `pmgaft train` without arguments writes its model.

    Example:
        >>> robust_folder().as_posix()
        'outputs/clip-pmgaft-emoji'
    """
    recipe = yaml.safe_load((PACKAGE / "recipes" / "emoji.yaml").read_text(encoding="utf-8"))
    return Path(recipe["output_dir"])
