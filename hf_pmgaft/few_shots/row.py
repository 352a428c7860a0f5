"""A row of a grid: one trained configuration and its evaluation, with all that is on file of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import OPTIONS_OF, find_recipe, read_options
from ..attacks import WITHOUT_BALL
from ..attacks.spec import AttackSpec, parse_options
from ..evaluation.report import RobustnessReport
from ..files import write_whole
from ..fingerprints import differences
from ..objectives import OBJECTIVES
from ..registry import near_misses
from .grid import ALL, PROTOCOLS, UNTRAINED, FewShotSet, Grid

TRAINED = "trained.json"
CLASSES = "base_classes.txt"
# Of a recipe, what says on which images it is trained and measured, and where to.
_OF_ITS_SETS = {
    *("dataset_name", "class_names", "image_column", "label_column", "caption_column", "resize", "shots", "streaming"),
    *("eval_sets", "suite", "suite_sets", "limit", "data_root", "retrieval_sets", "support_sets", "head"),
    *("in_domain_set", "final_attacks", "output_dir", "only_rows", "only_classes", "overwrite", "do_eval"),
    "dataloader_drop_last",
}
# What a row's training does not depend on, so that a moved folder is still its own.
_OF_PLACES = {"output_dir"}


@dataclass(frozen=True)
class Test:
    """Images that a row is measured on: the test images of a set, or those of a half of its classes."""

    __test__ = False  # pytest would take it for one of its own

    name: str
    entry: FewShotSet
    half: str | None = None

    def describe(self) -> dict[str, Any]:
        """What reports depend on of it."""
        options = {key: value for key, value in self.entry.options.items() if key != "caption_column"}
        described = {"test": self.entry.test, "rows": self.entry.test_rows, **options}
        if self.half is not None:
            described.update(half=self.half, base=self.entry.base, new=self.entry.new)
        return {key: value for key, value in described.items() if value is not None}


@dataclass(frozen=True)
class Row:
    """One trained configuration and its evaluation.

    Attributes:
        set, method (`str`), shots (`int`, *optional*), seed (`int`): Its place in the grid; shots `None` for all.
        protocol (`str`): The grid's; `"backbone"` of a run that others start from.
        folder (`Path`): What it writes: the trained model, a report for each protocol, and its log.
        options (`dict`): Those of `pmgaft train`; empty where nothing is trained.
        model (`str`, *optional*): What is measured where nothing is trained.
        tests (list of `Test`): What it is measured on.
        evaluation (`dict`): Attacks, number of images and seed of the evaluation.
        after (`Path`, *optional*): The folder of the row that it starts from.
        classes (`list[str]`, *optional*): Those that are trained on, where they are named and no half.
    """

    set: str
    method: str
    shots: int | None
    seed: int
    protocol: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    tests: Sequence[Test] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    after: Path | None = None
    classes: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """How progress and errors call it."""
        if self.protocol == "backbone":
            return f"backbone {self.method}"
        if self.method == UNTRAINED:
            return f"{self.set}, {self.method}"
        return f"{self.set}, {self.method}, {shots_text(self.shots)}, seed {self.seed}"

    @property
    def report_file(self) -> Path:
        """The report of its protocol."""
        return self.folder / f"{self.protocol}.json"

    # ---- What is on file ----

    def is_trained(self) -> bool:
        """Whether there is nothing to train, or it was trained to the end."""
        return not self.options or (self.folder / TRAINED).is_file()

    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        return self.is_trained() and (not self.tests or self.report_file.is_file())

    def forget(self) -> None:
        """Removes what was measured of a model that is trained anew."""
        for protocol in PROTOCOLS:
            (self.folder / f"{protocol}.json").unlink(missing_ok=True)

    def note_trained(self, figures: Mapping[str, Any]) -> None:
        """Writes down that it is trained, by which options, and what that took."""
        write_whole(self.folder / TRAINED, json.dumps({"options": self._record(), **figures}, indent=1) + "\n")

    def trained(self) -> dict[str, Any]:
        """What [`Row.note_trained`] wrote; empty where nothing is trained."""
        return json.loads((self.folder / TRAINED).read_text(encoding="utf-8")) if self.options else {}

    def measured_by(self) -> dict[str, Any]:
        """What its figures depend on beside the model, as its report records it."""
        return json.loads(
            json.dumps({**self.evaluation, "tests": {each.name: each.describe() for each in self.tests}})
        )

    def report(self) -> RobustnessReport:
        """Its report."""
        return RobustnessReport.load(self.report_file)

    def check(self) -> None:
        """Raises `ValueError` if what is on file was computed by other options."""
        differing = {}
        if self.options and (self.folder / TRAINED).is_file():
            differing = differences(self.trained()["options"], self._record())
        if self.report_file.is_file():
            there = self.report().provenance.get("few_shots", {}).get("evaluation", {})
            differing.update(differences(there, self.measured_by()))
        if differing:
            key, (there, now) = next(iter(differing.items()))
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise ValueError(
                f"{self.folder} holds this row by other options: {key} was {there!r} and is {now!r}{more}. Pass "
                "another output_dir, or remove that folder to have it computed anew."
            )

    def _record(self) -> dict[str, Any]:
        left_out = {*_OF_PLACES, "model_name_or_path"} if self.after is not None else _OF_PLACES
        record = {key: value for key, value in self.options.items() if key not in left_out}
        if self.after is not None:
            record["backbone"] = self.after.name
        if self.classes is not None:
            record["only_classes"] = list(self.classes)
        return json.loads(json.dumps(record))


def shots_text(shots: int | None) -> str:
    """Shots in words.

    Example:
        >>> shots_text(1), shots_text(16), shots_text(None)
        ('1 shot', '16 shots', 'all shots')
    """
    return "all shots" if shots is None else f"{shots} shot{'s' if shots > 1 else ''}"


def file_name(text: str) -> str:
    """A name that every file system takes, of a set such as `user/photos@train`.

    Example:
        >>> file_name("user/photos@train-tecoa")
        'user_photos_train-tecoa'
    """
    return re.sub(r"[^\w.-]+", "_", text)


# ---- The rows of a grid ----


def rows_of(grid: Grid, option_names: Collection[str]) -> list[Row]:
    """The rows of a grid: those that others start from, then seed by seed all others, so that each seed is whole.

    Args:
        grid (`Grid`): What is to be trained and measured.
        option_names (`list[str]`): The options that `pmgaft train` has.

    Raises:
        ValueError: for options of methods that `pmgaft train` has not.
    """
    _check_options(grid, option_names)
    needed = {options["backbone"] for options in grid.methods.values() if options.get("backbone")}
    rows = [_backbone_row(grid, name, option_names) for name in grid.backbones if name in needed]
    for seed in grid.seeds:
        for name in grid.sets:
            for method in grid.methods:
                if method != UNTRAINED:
                    rows += [_row(grid, name, method, shots, seed, option_names) for shots in grid.shots]
                elif seed == grid.seeds[0]:
                    rows.append(_untrained_row(grid, name))
    return rows


def _row(grid: Grid, name: str, method: str, shots: int | None, seed: int, option_names: Collection[str]) -> Row:
    entry, own = grid.sets[name], dict(grid.methods[method])
    is_halved = grid.protocol == "base_to_new"
    place = f"{name}-{method}-{ALL if shots is None else shots}-{seed}{'-base' if is_halved else ''}"
    folder = Path(grid.output_dir) / "rows" / file_name(place)
    backbone = own.pop("backbone", None)
    after = None if backbone is None else _backbone_folder(grid, backbone)

    options = _with_recipe({**grid.settings, **own}, option_names)
    model = grid.model if after is None else str(after)
    if model is not None:
        options["model_name_or_path"] = model
    options.setdefault("dataloader_drop_last", False)  # which of few shots may leave none
    options.update({key: value for key, value in entry.options.items() if key != "caption_column"})
    if OBJECTIVES[options.get("objective", "pmg_aft")].uses_captions:
        options["caption_column"] = entry.options.get("caption_column", entry.options.get("label_column", "label"))
    options.update(dataset_name=entry.train, seed=seed, **_quiet(folder))
    if shots is not None:
        options["shots"] = shots
    if entry.rows is not None:
        options["only_rows"] = entry.rows
    if is_halved:
        options["only_classes"] = "base" if entry.base is None else str(folder / CLASSES)
    return Row(
        set=name,
        method=method,
        shots=shots,
        seed=seed,
        protocol=grid.protocol,
        folder=folder,
        options=options,
        tests=_tests(grid, name),
        evaluation=_evaluation(grid),
        after=after,
        classes=entry.base if is_halved else None,
    )


def _untrained_row(grid: Grid, name: str) -> Row:
    folder = Path(grid.output_dir) / "rows" / file_name(f"{name}-{UNTRAINED}")
    if grid.protocol == "base_to_new":
        folder = folder.with_name(f"{folder.name}-base")
    return Row(
        set=name,
        method=UNTRAINED,
        shots=0,
        seed=grid.seeds[0],
        protocol=grid.protocol,
        folder=folder,
        model=grid.model,
        tests=_tests(grid, name),
        evaluation=_evaluation(grid),
    )


def _backbone_row(grid: Grid, name: str, option_names: Collection[str]) -> Row:
    folder = _backbone_folder(grid, name)
    options = _with_recipe(dict(grid.backbones[name]), option_names, drop=set())
    for key in ("eval_sets", "suite", "limit", "suite_sets", "in_domain_set", "final_attacks"):
        options.pop(key, None)
    options.update(_quiet(folder))
    return Row("", name, None, int(options.get("seed", 0)), "backbone", folder, options)


def _backbone_folder(grid: Grid, name: str) -> Path:
    return Path(grid.output_dir) / "backbones" / name


def _quiet(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder), "do_eval": False, "disable_tqdm": True}


def _tests(grid: Grid, name: str) -> list[Test]:
    if grid.protocol == "base_to_new":
        return [Test(half, grid.sets[name], half) for half in ("base", "new")]
    return [Test(entry.name, entry) for entry in grid.tests_of(name)]


def _evaluation(grid: Grid) -> dict[str, Any]:
    """How rows are measured; the seed is the same for all, so that they are on the same images and noise."""
    attacks = []
    for eps in grid.eps:
        for text in grid.attacks:
            options = parse_options(text)
            has_ball = options["attack"] not in WITHOUT_BALL
            ball = {"eps": eps, "norm": grid.norm} if has_ball else {}
            attacks.append(AttackSpec.of({**ball, **options}).to_dict())
    return {"attacks": attacks, "max_samples": grid.max_samples, "seed": 0}


def _with_recipe(
    overrides: dict[str, Any], option_names: Collection[str], drop: Collection[str] = _OF_ITS_SETS
) -> dict[str, Any]:
    """The options of a recipe with others in their place, as a command line has them in the place of a recipe's."""
    recipe = overrides.pop("recipe", None)
    if recipe is None:
        return overrides
    values = read_options(find_recipe(recipe), option_names)
    values = {key: value for key, value in values.items() if key not in drop}
    for name, its_options in OPTIONS_OF.items():
        if name in overrides and overrides[name] != values.get(name):
            values = {key: value for key, value in values.items() if key not in its_options}
    return {**values, **overrides}


def _check_options(grid: Grid, option_names: Collection[str]) -> None:
    """Raises `ValueError` for options of the grid that `pmgaft train` has not, or that rows set themselves."""
    of_rows = {"seed", "shots", "output_dir", "do_eval", "only_classes", "only_rows", "dataset_name"}
    own = {"recipe", "backbone"}
    for what, options in {"settings": grid.settings, **grid.methods}.items():
        unknown = sorted(set(options) - set(option_names) - own)
        if unknown:
            hints = near_misses(unknown, option_names)
            raise ValueError(f"{what} of the grid has options that `pmgaft train` has not: {hints}.")
        taken = sorted(of_rows & set(options))
        if taken:
            raise ValueError(
                f"{what} of the grid has {', '.join(taken)}, which the rows of the grid set. Leave it out, or say it "
                "of the sets, shots and seeds of the grid."
            )
