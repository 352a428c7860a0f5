"""Sets of the shipped suites by their names: `tiny_imagenet`, `paper16:dtd`, and what may be meant by others."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ..data.sources import parse_set, split_revision
from ..embedded import emoji_folder
from .fields import EMBEDDED
from .suite import read_suite, shipped_suites

logger = logging.getLogger(__name__)

FIRST = "paper16"  # whose sets a bare name means where suites share it
CLOSE = 0.85  # how alike a name is to one that it may be meant for


@dataclass(frozen=True)
class KnownSet:
    """A set of a suite.

    Attributes:
        suite (`str`): A shipped suite or a YAML file.
        name (`str`): The set's name there.
        entry (`dict`): Its fields, as `read_suite` gives them.
        split (`str`, *optional*): A split that was named with it.

    Example:
        >>> known = find_known_set("paper16:dtd@validation")
        >>> known.name, known.split, known.text
        ('dtd', 'validation', 'paper16:dtd')
    """

    suite: str
    name: str
    entry: dict[str, Any]
    split: str | None = None

    @property
    def text(self) -> str:
        """The name that says the suite too."""
        return f"{self.suite}:{self.name}"

    @property
    def place(self) -> str:
        """Where it lies, as it may be named to be read with other class names or columns.

        Example:
            >>> find_known_set("dtd").place
            'tanganke/dtd'
        """
        if self.entry["path"] == EMBEDDED:
            return f"{emoji_folder() / 'data'}:{self.entry['config']}"
        return self.entry["path"]

    def to_train_on(self) -> dict[str, Any]:
        """Gives the fields of its training split, without what the suite states of the evaluated one.

        Raises:
            ValueError: for a set without a training split, unless a split was named.

        Example:
            >>> find_known_set("food101").to_train_on()["split"]
            'train'
        """
        evaluated = self.entry.get("split", "test")
        split = self.split or self.entry.get("train_split")
        if split is None:
            raise ValueError(
                f"You passed {self.name}, but {self.text} has no training split: {evaluated} is what is evaluated. "
                f"Name another split of {self.place} as {self.name}@SPLIT, or pass another set."
            )
        if set(split.split("+")) & set(evaluated.split("+")):
            logger.warning(
                "%s is read from its split %r, whose images %s evaluates: figures of it are then no test.",
                self.name,
                split,
                self.suite,
            )
        fields = {key: value for key, value in self.entry.items() if key not in ("num_images", "sample_ids")}
        return {**fields, "split": split}


def find_known_set(text: str) -> KnownSet | None:
    """Finds the set of a suite that a text names: by its bare name or as `SUITE:NAME`, with `[@split][#revision]`.

    What is there as a file or folder is no known set, whatever it is called.

    Args:
        text (`str`): As `load_set` takes it.

    Returns:
        `KnownSet`, or `None` for a name that no suite claims.

    Raises:
        ValueError: for a set that its suite does not have, the name of a whole suite, an unknown suite, and a name
            without a user that is written almost as a known set's.

    Example:
        >>> find_known_set("tiny_imagenet").text, find_known_set("natural_shift:imagenet_r").entry["path"]
        ('paper16:tiny_imagenet', 'clip-benchmark/wds_imagenet-r')
        >>> find_known_set("ethz/food101") is None
        True
    """
    text, revision = split_revision(text)
    name, config, split = parse_set(text, default_split="")
    if is_suite(name):
        if config is None:
            raise ValueError(
                f"You passed {text!r}, which is a whole suite. Pass one set of it, such as {name}:{_first(name)}, or "
                f"--suite {name} to evaluate all."
            )
        return _of_suite(name, config, split, revision)
    if Path(name).exists():
        _note_of_namesake(name)
        return None
    if "/" in name or "\\" in name or Path(name).suffix:
        return None

    places = _places()
    if config is not None:
        if config in places:
            raise ValueError(
                f"You passed {text!r}, but {name!r} is no suite. Pass {config}, {places[config]}:{config}, or "
                f"USER/{name}:{config} for a set on the Hub."
            )
        return None
    if name in places:
        return _of_suite(places[name], name, split, revision)
    _check_spelling(name)
    return None


def known_set_at(place: str) -> KnownSet | None:
    """Finds the known set that lies at a place on the Hub, if there is one.

    Example:
        >>> known_set_at("zh-plus/tiny-imagenet").text
        'paper16:tiny_imagenet'
    """
    suites = {suite: read_suite(suite) for suite in shipped_suites()}
    for name, suite in _places().items():
        entry = suites[suite][name]
        if entry["path"].casefold() == place.casefold():
            return KnownSet(suite, name, entry)
    return None


def hub_name(text: str) -> str:
    """Gives the place on the Hub of a known set with its split, and of another set the text itself.

    Example:
        >>> hub_name("tiny_imagenet"), hub_name("user/photos:small@train")
        ('zh-plus/tiny-imagenet@train', 'user/photos:small@train')
    """
    known = find_known_set(text)
    if known is None:
        return text
    return f"{known.place}@{known.to_train_on()['split']}"


def hint_at_known_set(place: str) -> None:
    """Logs that a set is one of a suite's, where its place was passed in place of its name."""
    known = known_set_at(place)
    if known is not None:
        logger.warning(
            "%s is %s, read here with its own class names and size: pass %s for the names, template and size of the "
            "papers' protocol.",
            place,
            known.text,
            known.name,
        )


def is_suite(name: str) -> bool:
    """Whether a name stands for a suite: a shipped one, unless a folder is called so, or a YAML file of one's own."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.is_file()
    return name in shipped_suites() and not path.exists()


def _of_suite(suite: str, name: str, split: str, revision: str | None) -> KnownSet:
    entries = read_suite(suite)
    if name not in entries:
        raise ValueError(f"The suite {suite!r} has no set {name!r}. It has: {', '.join(entries)}.")
    entry = entries[name]
    if revision is not None:
        entry = {**entry, "revision": revision}
    return KnownSet(suite, name, entry, split or None)


@cache
def _places() -> dict[str, str]:
    """The suite of each bare name. Sets that are stated as the same as another suite's are named with theirs."""
    suites = sorted(shipped_suites(), key=lambda suite: suite != FIRST)
    return {
        name: suite
        for suite in reversed(suites)
        for name, entry in read_suite(suite).items()
        if "same_as" not in entry
    }


def _first(suite: str) -> str:
    return next(iter(read_suite(suite)))


def _plain(name: str) -> str:
    """A name without what people write in several ways."""
    return re.sub(r"[\W_]", "", name).casefold()


def _check_spelling(name: str) -> None:
    """Raises `ValueError` for a name that is almost a known set's: nothing else on the Hub is called so."""
    names = {_plain(known): known for known in _places()}
    meant = get_close_matches(_plain(name), names, n=1, cutoff=CLOSE)
    on_hub = {entry["path"].split("/")[-1] for suite in shipped_suites() for entry in read_suite(suite).values()}
    if meant and name not in on_hub:
        known = names[meant[0]]
        raise ValueError(
            f"You passed {name!r}, which is no file, no folder and no known set. Pass {known} if you mean "
            f"{_places()[known]}:{known}, or the Hub id with its user, USER/{name}."
        )


def _note_of_namesake(name: str) -> None:
    """Logs that a file or folder is read, where it is called as a known set."""
    if name in _places():
        logger.warning("%s is the file or folder of that name; the known set is %s:%s.", name, _places()[name], name)
