"""A grid of few-shot runs: methods x shots x seeds x sets, as a YAML file and flags describe it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..arguments import read_options, recipe_names
from ..registry import check_choice, check_count, near_misses

PROTOCOLS = ("plain", "base_to_new", "cross", "shift")
# What is measured without training, beside the methods.
UNTRAINED = "none"
ALL = "all"  # in place of a number of shots


@dataclass(frozen=True)
class FewShotSet:
    """A set that shots are drawn from, or that is tested on.

    Attributes:
        name (`str`): How tables call it.
        train, test (`str`): `NAME[:config][@split]` or a known set, whose splits its suite states.
        options (`dict`): What else `pmgaft train` is told of it, such as `prompt_template` and `label_column`.
        rows, test_rows (`str`, *optional*): `COLUMN=VALUE[,VALUE]`: the rows that are trained on, and tested on.
        base, new (`list[str]`, *optional*): Classes of the protocol `base_to_new`, if not by halves; `new` are the
            others if not given.

    Example:
        >>> FewShotSet.of("pets", "oxford_pets").test, FewShotSet.of("mine", {"train": "mine@train"}).test
        ('oxford_pets', 'mine@train')
    """

    name: str
    train: str
    test: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: str | None = None
    test_rows: str | None = None
    base: Sequence[str] | None = None
    new: Sequence[str] | None = None

    OPTIONS = ("prompt_template", "class_names", "image_column", "label_column", "caption_column", "resize")

    @classmethod
    def of(cls, name: str, entry: str | Mapping[str, Any]) -> FewShotSet:
        """The set that an entry of a grid names: a text, or a mapping with `train`, `test` and options.

        Raises:
            ValueError: for an entry that names no set, and for unknown keys.
        """
        entry = {"train": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not ({"train", "test"} & set(entry)):
            raise ValueError(
                f"The set {name!r} of the grid is {entry!r}, which names no images. Give it train and test."
            )
        own = {each.name for each in fields(cls)} - {"name", "options"}
        unknown = sorted(set(entry) - own - set(cls.OPTIONS))
        if unknown:
            hints = near_misses(unknown, [*own, *cls.OPTIONS])
            raise ValueError(f"The set {name!r} of the grid has keys that are none: {hints}.")
        if entry.get("new") and not entry.get("base"):
            raise ValueError(f"The set {name!r} of the grid names new classes and no base ones. Name base, or none.")
        options = {key: value for key, value in entry.items() if key in cls.OPTIONS}
        rest = {key: value for key, value in entry.items() if key in own}
        train = rest.pop("train", rest.get("test"))
        return cls(name, train, rest.pop("test", train), options, **rest)


@dataclass(frozen=True)
class Grid:
    """What is trained, on how many shots, by which seeds, and how it is measured.

    Attributes:
        sets (`dict[str, FewShotSet]`): What shots are drawn from, by name.
        methods (`dict[str, dict]`): Options of `pmgaft train` by method, with `recipe` for what they change and
            `backbone` for what they start from; `"none"` is measured without training.
        shots (`list[int | None]`): Images per class; `None` for all.
        seeds (`list[int]`): Of the draw of images and of training.
        protocol (`str`): One of `PROTOCOLS`.
        tests (`dict[str, FewShotSet]`): What the protocols `cross` and `shift` test on.
        backbones (`dict[str, dict]`): Runs of `pmgaft train`, by name, that methods start from.
        settings (`dict`): Options of `pmgaft train` for all methods, over their recipes.
        model (`str`, *optional*): What is tuned, if a recipe's model is not meant.
        baseline (`str`, *optional*): The method that others are compared with; the first if not given.
        attacks, eps (`list[str]`): As `pmgaft evaluate` takes them.
        norm (`str`): Of the attacks' balls.
        max_samples (`int`, *optional*): Test images per set, the same for all rows.
        output_dir (`str`): Where rows, tables and pictures go.

    Example:
        >>> grid = Grid.of({"sets": ["oxford_pets"], "methods": ["tecoa", "pmg_aft"], "shots": [1, "all"]})
        >>> grid.shots, grid.baseline
        ([1, None], 'tecoa')
    """

    sets: Mapping[str, FewShotSet]
    methods: Mapping[str, Mapping[str, Any]]
    shots: Sequence[int | None] = (1, 4, 16)
    seeds: Sequence[int] = (0, 1, 2)
    protocol: str = "plain"
    tests: Mapping[str, FewShotSet] = field(default_factory=dict)
    backbones: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    baseline: str | None = None
    attacks: Sequence[str] = ("pgd,num_steps=20,loss=margin",)
    eps: Sequence[str] = ("4/255",)
    norm: str = "linf"
    max_samples: int | None = None
    output_dir: str = "outputs/few-shots"

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Grid:
        """The grid that the entries of a YAML file describe.

        Raises:
            ValueError: for entries of which no row follows, naming them.
        """
        entries = {key: value for key, value in entries.items() if value is not None}
        for key in ("sets", "methods"):
            if not entries.get(key):
                raise ValueError(f"The grid names no {key}, so there is nothing to train. Name some.")
        entries["sets"] = _sets(entries["sets"])
        entries["tests"] = _sets(entries.get("tests", {}))
        entries["methods"] = {name: _method(name, options) for name, options in _named(entries["methods"]).items()}
        for key in ("attacks", "eps"):
            if isinstance(entries.get(key), str):
                entries[key] = [entries[key]]
        grid = cls(**entries)
        grid = replace(
            grid,
            shots=[parse_shots(each) for each in _listed(grid.shots)],
            seeds=[check_count("seeds", seed, least=0) for seed in _listed(grid.seeds)],
            baseline=grid.baseline or next(iter(grid.methods)),
        )
        grid._check()
        return grid

    @classmethod
    def read(cls, file: str | os.PathLike | None, overrides: Mapping[str, Any] | None = None) -> Grid:
        """Reads a YAML file, of which some entries are overridden: names of methods and sets choose of its own.

        A name that the file has not is a recipe, or a known set. Entries under the name of a protocol, such as
        `cross: {tests: ...}`, take the place of the others where that is the protocol.

        Args:
            file (`str`, *optional*): Without one, the overrides are all there is.
            overrides (`dict`): Entries by key; `None` for what is not overridden.
        """
        entries = {} if file is None else read_options(file, [*grid_keys(), *PROTOCOLS], "--grid")
        new = {key: value for key, value in (overrides or {}).items() if value is not None}
        protocol = check_choice("protocol", new.get("protocol", entries.get("protocol", "plain")), PROTOCOLS)
        of_protocol = {name: entries.pop(name, None) or {} for name in PROTOCOLS}[protocol]
        entries.update(of_protocol)
        for key in ("methods", "sets", "tests"):
            if key in new:
                there = _named(entries.get(key) or {})
                new[key] = {name: there.get(name, name) for name in _listed(new[key])}
        return cls.of({**entries, **new})

    def _check(self) -> None:
        check_choice("protocol", self.protocol, PROTOCOLS)
        for key, values in (("shots", self.shots), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"The grid has the {key} {list(values)}. Name at least one, and each once.")
        if self.baseline not in self.methods:
            raise ValueError(
                f"The baseline {self.baseline!r} is no method of the grid. It has: {', '.join(self.methods)}."
            )
        for name, options in self.methods.items():
            backbone = options.get("backbone")
            if backbone is not None and backbone not in self.backbones:
                raise ValueError(
                    f"The method {name!r} starts from {backbone!r}, which is no backbone of the grid. It has: "
                    f"{', '.join(self.backbones) or 'none'}."
                )
        if self.protocol in ("cross", "shift") and not any(self.tests_of(name) for name in self.sets):
            raise ValueError(
                f"The protocol {self.protocol} tests on other sets than those of training, and the grid has none. "
                "Name them under tests."
            )

    def tests_of(self, name: str) -> list[FewShotSet]:
        """What is tested on after training on a set; of the protocol `base_to_new` that set alone."""
        if self.protocol in ("plain", "base_to_new"):
            return [self.sets[name]]
        others = self.tests if self.tests or self.protocol == "shift" else self.sets
        return [entry for other, entry in others.items() if other != name]


def grid_keys() -> list[str]:
    """The keys of a grid's YAML file."""
    return [each.name for each in fields(Grid)]


def parse_shots(value: Any) -> int | None:
    """A number of shots, or `None` for all images of each class.

    Example:
        >>> parse_shots("16"), parse_shots("all")
        (16, None)
    """
    if value is None or value == ALL:
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"You passed {value!r} shots, which is no number of images. Pass numbers from 1, or all.")
    return value


def _sets(entries: Any) -> dict[str, FewShotSet]:
    return {name: FewShotSet.of(name, entry) for name, entry in _named(entries).items()}


def _named(entries: Any) -> dict[str, Any]:
    """A mapping as it is, and a list of names with nothing more to say of each."""
    if isinstance(entries, Mapping):
        return dict(entries)
    return {name: name for name in _listed(entries)}


def _method(name: str, options: Any) -> dict[str, Any]:
    options = {} if options in (None, name) else dict(options)
    if name != UNTRAINED:
        recipe = options.setdefault("recipe", name)
        if recipe not in recipe_names():
            raise ValueError(
                f"The method {name!r} has the recipe {recipe!r}, which there is not. Choose of {recipe_names()}."
            )
    return options


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, (str, int)) else list(values)
