"""What the page computes with: models that are opened once, class texts that are encoded once, and rows of sets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from PIL import Image

from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import ZeroShotDataset
from ..data.images import read_image
from ..data.pictures import open_picture
from ..data.sources import parse_set, split_revision
from ..embedded import name_embedded
from ..evaluation.attacked_image import AttackedImage, Seen
from ..evaluation.command_lines import command_line
from ..evaluation.plan import sample_ids
from ..evaluation.single_image import PictureClassifier
from ..suites.sets import load_set, set_name
from ..tuning.saved import load_one_of_several
from .settings import Settings

MOST_TEXTS = 32  # lists of class texts that are kept, of all models together


@dataclass(frozen=True)
class Picture:
    """A picture of a visitor: a file, or a row of a set.

    Args:
        name (`str`): What the file was called.
        content (`bytes`): The file.
        set_text (`str`, *optional*), row (`int`): Where it was drawn from.

    Example:
        >>> Picture("cat.png", b"...").row
        0
    """

    name: str
    content: bytes
    set_text: str | None = None
    row: int = 0


@dataclass(frozen=True)
class Drawn:
    """A row of a set, with all that comes with it.

    Args:
        set_text (`str`), row (`int`): Where it stands.
        image (`Image`): As it lies in the set.
        label (`str`): Its class.
        class_names (`list[str]`), prompt_templates (`list[str]`): Those of the set.

    Example:
        >>> Drawn("food@test", 3, Image.new("RGB", (8, 8)), "pear", ["pear", "fig"], ["a {}"]).label
        'pear'
    """

    set_text: str
    row: int
    image: Image.Image
    label: str
    class_names: Sequence[str]
    prompt_templates: Sequence[str]


class Bench:
    """The models of a page. One visitor at a time computes with them.

    Args:
        settings (`Settings`): Which models and sets, and the limits.

    Raises:
        OSError, ValueError: for a model that does not open, and a set that is not one of labelled images.

    Example:
        >>> model.save_pretrained("tiny")
        >>> _ = processor.save_pretrained("tiny")
        >>> bench = Bench(Settings(models=["tiny"]))
        >>> list(bench.models), bench.names_of_sets[:2]
        (['tiny'], ['food', 'animals'])
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.models: dict[str, tuple[Any, Any]] = {}
        device = PartialState().device
        for name, place in settings.places.items():
            model, processor = load_one_of_several(place, settings.processor, settings.base)
            self.models[name] = (model.to(device), processor)
        self._texts: OrderedDict[Any, PictureClassifier] = OrderedDict()
        self._sets: dict[tuple[str, str], ZeroShotDataset] = {}
        self._lock = threading.Lock()
        if settings.eval_sets:  # whose names may be wrong
            for text in settings.set_texts:
                self._set(text, next(iter(self.models)))

    # ---- Sets ----

    @property
    def names_of_sets(self) -> list[str]:
        """What the sets are called."""
        return [set_name(text) for text in self.settings.set_texts]

    def set_text(self, name: str) -> str:
        """The set of a name, as it is opened.

        Raises:
            ValueError: for a name of none.
        """
        for text in self.settings.set_texts:
            if set_name(text) == name:
                return text
        raise ValueError(f"You passed the set {name!r:.80}. Choose one of {', '.join(self.names_of_sets)}.")

    def draw(self, name: str, row: int | None = None, seed: int = 0) -> Drawn:
        """Takes a row of a set: the one that is named, or one by the seed.

        Raises:
            ValueError: for a set or row that there is not.
        """
        text = self.set_text(name)
        data = self._set(text, next(iter(self.models)))
        if row is None:
            row = sample_ids(len(data), 1, seed)[0]
        if not 0 <= row < len(data):
            raise ValueError(f"You passed row {row} of {name}, which has the rows 0 to {len(data) - 1}. Pass one.")
        return Drawn(
            text,
            row,
            data.framed(read_image(data.dataset[row][data.image_column])),
            data.class_names[data[row]["labels"]],
            data.class_names,
            data.prompt_templates,
        )

    def readings(self, name: str) -> list[ZeroShotDataset]:
        """A set by its name, as the processor of each model reads it."""
        return [self._set(self.set_text(name), model_name) for model_name in self.models]

    def _set(self, text: str, model_name: str) -> ZeroShotDataset:
        """A set, as the processor of one model reads it."""
        key = (text, model_name)
        if key not in self._sets:
            data = load_set(text, self.models[model_name][1], prompt_templates=self.settings.template)
            if not isinstance(data, ZeroShotDataset):
                raise ValueError(
                    f"You passed the set {text!r}, which has masks. Pass sets whose images have one class each."
                )
            self._sets[key] = data
        return self._sets[key]

    # ---- Pictures ----

    def check(self, picture: Picture) -> None:
        """Raises `ValueError` for a picture that cannot be opened, or has too many pixels."""
        open_picture(picture.content, self.settings.max_pixels)

    def classify(
        self, picture: Picture, class_names: Sequence[str], templates: Sequence[str], go_on: Callable[[], None]
    ) -> dict[str, Seen]:
        """What each model says of a picture, by the model's name; `go_on` is called before each."""
        with self._lock:
            seen = {}
            for name in self.models:
                go_on()
                classifier = self._classifier(name, class_names, templates)
                seen[name] = classifier.classify(self._pixels(picture, name))
            return seen

    def attack(
        self,
        picture: Picture,
        class_names: Sequence[str],
        templates: Sequence[str],
        attack: AttackSpec,
        *,
        label: str | None,
        target: str | None,
        seed: int,
        on_pass: Callable[[str, int, int], None],
    ) -> dict[str, AttackedImage]:
        """Attacks each model on a picture, and gives what came of it, by the model's name.

        Args:
            on_pass (`Callable`): Called with the model's name, the number of the pass and of how many at most it is.
                What it raises ends the attack.
        """
        with self._lock:
            attacked = {}
            for name in self.models:
                classifier = self._classifier(name, class_names, templates)
                most = classifier.most_passes(attack)
                on_pass(name, 0, most)
                attacked[name] = classifier.attack(
                    self._pixels(picture, name),
                    attack,
                    label=label,
                    target=target,
                    seed=seed,
                    row=picture.row,
                    on_pass=lambda number, _, name=name, most=most: on_pass(name, number, most),
                )
            return attacked

    def command(
        self,
        picture: Picture,
        class_names: Sequence[str],
        templates: Sequence[str],
        attack: AttackSpec,
        *,
        label: str | None,
        target: str | None,
        seed: int,
    ) -> str:
        """The command that makes what [`Bench.attack`] makes of the same arguments."""
        names: Sequence[str] | None = class_names
        if picture.set_text is not None:
            data = self._set(picture.set_text, next(iter(self.models)))
            names = None if list(class_names) == list(data.class_names) else class_names
        return command_line(
            attack,
            names,
            image=picture.name if picture.set_text is None else None,
            eval_set=self._told_set(picture.set_text),
            row=picture.row,
            models=self.settings.told_places,
            processor=self.settings.processor,
            base=self.settings.base,
            label=label,
            target=target,
            prompt_templates=list(templates) or None,
            seed=seed,
        )

    def _told_set(self, text: str | None) -> str | None:
        """A set as a visitor is told of it."""
        if text is None or self.settings.shows_paths or name_embedded(text) != text:
            return text
        place, _, _ = parse_set(split_revision(text)[0])
        return set_name(text) if Path(place).exists() else text

    def judge(
        self, attacked: AttackedImage, source: str, templates: Sequence[str], go_on: Callable[[], None]
    ) -> dict[str, Seen]:
        """What each model says of the adversarial picture that was made on one of them, by the model's name."""
        class_names = list(attacked.after.probabilities)
        with self._lock:
            seen = {}
            for name in self.models:
                go_on()
                if name == source:
                    seen[name] = attacked.after
                else:
                    seen[name] = self._classifier(name, class_names, templates).classify(attacked.picture)
            return seen

    def _classifier(self, name: str, class_names: Sequence[str], templates: Sequence[str]) -> PictureClassifier:
        """One model with these class texts, which are encoded when they are first asked for."""
        key = (name, tuple(class_names), tuple(templates))
        if key not in self._texts:
            model, processor = self.models[name]
            self._texts[key] = PictureClassifier(model, processor, class_names, list(templates) or None)
            if len(self._texts) > MOST_TEXTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def _pixels(self, picture: Picture, name: str) -> Any:
        """What a model's classifier takes: of a set what its evaluation takes, so that both say the same."""
        if picture.set_text is not None:
            return self._set(picture.set_text, name)[picture.row]["images"]
        return open_picture(picture.content, self.settings.max_pixels)
