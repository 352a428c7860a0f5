"""What can be wrong with a few-shot grid, found before its first row is computed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..embedded import emoji_folder
from ..few_shots.grid import UNTRAINED, Grid
from ..few_shots.row import Row
from ..tuning.saved import load_pair
from . import train
from .few_shot_row import load_test
from .train_arguments import TYPES
from .train_setup import load_training_set


def option_names() -> list[str]:
    """The options that `pmgaft train` has."""
    return [option.name for cls in TYPES for option in fields(cls) if option.init]


def check_rows(grid: Grid, rows: Sequence[Row]) -> None:
    """Raises `ValueError` for options, shots and sets of which some row could not be trained or measured.

    Every training set and every test is opened, and its labels are counted; nothing is computed.
    """
    if UNTRAINED in grid.methods and grid.model is None:
        raise ValueError(
            f"You passed the method {UNTRAINED!r} without a model, so there is nothing to measure untrained. Pass "
            "--model."
        )
    _check_class_contexts(grid)
    parsed = {}
    for row in rows:
        if row.options and (row.set, row.method) not in parsed:
            parsed[row.set, row.method] = _parsed(row)

    _, processor = load_pair(grid.model or _first_model(rows))
    for name in grid.sets:
        row = next((row for row in rows if row.set == name and row.options), None)
        examples = None
        if row is not None:
            examples = _check_shots(grid, name, parsed[name, row.method], processor)
        for test in next(row for row in rows if row.set == name).tests:
            _check_test(grid, test, examples, processor)


def _parsed(row: Row) -> tuple[Any, Any, Any]:
    """The options of a row as `pmgaft train` reads them, which raises what is wrong with them."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.yaml"
        config.write_text(yaml.safe_dump(dict(row.options)), encoding="utf-8")
        try:
            return train.parse(["--config", str(config)])
        except ValueError as error:
            raise ValueError(f"{row.name}: {error}") from error


def _check_class_contexts(grid: Grid) -> None:
    """Prompts with a context for each class serve no other classes."""
    if grid.protocol not in ("base_to_new", "cross"):
        return
    for name, options in grid.methods.items():
        if {**grid.settings, **options}.get("tuning_kwargs", {}).get("class_specific"):
            raise ValueError(
                f"The method {name!r} learns a context for each class (class_specific), and the protocol "
                f"{grid.protocol} tests on classes that it did not see. Leave class_specific out."
            )


def _first_model(rows: Sequence[Row]) -> str:
    names = [row.options.get("model_name_or_path") for row in rows if row.after is None]
    return next((name for name in names if name), str(emoji_folder() / "model"))


def _check_shots(grid: Grid, name: str, parsed: tuple[Any, Any, Any], processor: Any) -> Any:
    """The training examples of a set, of which every class has as many images as the grid has shots."""
    from ..data.few_shots import few_shot
    from ..data.subsets import images_of_classes, keep_classes, split_classes

    _, data_args, _ = parsed
    entry = grid.sets[name]
    data_args.shots = data_args.only_classes = None
    data_args.cache_images = 0
    data_args.caption_column = []
    examples = load_training_set(data_args, processor, seed=0)
    classes = examples
    if grid.protocol == "base_to_new":
        base, _ = split_classes(examples.class_names, entry.base, entry.new)
        classes = keep_classes(examples, base)
    try:
        few_shot(classes, max([shots for shots in grid.shots if shots is not None], default=1))
    except ValueError as error:
        raise ValueError(f"Set {name!r}: {error}") from error
    if not all(images_of_classes(classes)):
        raise ValueError(f"Set {name!r}: some classes have no image to train on. Pass a set without them.")
    return examples


def _check_test(grid: Grid, test: Any, examples: Any, processor: Any) -> None:
    """A test has other images than training, one of every class, and, where classes are the same, the same names."""
    from ..data.subsets import images_of_classes

    data = load_test(test, processor)
    if examples is not None and _is_same(data, examples):
        both = set(examples.sample_ids) & set(data.sample_ids or range(len(data)))
        if both:
            raise ValueError(
                f"Test {test.name!r} has {len(both)} images that its training set has, too, so that what was learned "
                "by heart would count. Name another split or other rows under test."
            )
    if grid.protocol not in ("plain", "base_to_new"):
        return
    empty = [name for name, count in zip(data.class_names, images_of_classes(data), strict=True) if not count]
    if empty:
        listed = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"Test {test.name!r}: {len(empty)} of the {len(data.class_names)} classes have no test image: {listed}. "
            "Pass a split that has one of each, or a set without these classes."
        )
    if examples is not None and not set(data.class_names) <= set(examples.class_names):
        other = sorted(set(data.class_names) - set(examples.class_names))[0]
        raise ValueError(
            f"Test {test.name!r} has the class {other!r}, which its training set has not. Pass test images of the "
            "same classes, or the protocol cross."
        )
    if test.half is None and examples is not None and list(data.class_names) != list(examples.class_names):
        raise ValueError(
            f"Test {test.name!r} has other classes, or in another order, than its training set. Pass test images of "
            "the same classes, or the protocol cross."
        )


def _is_same(data: Any, examples: Any) -> bool:
    """Whether two sets read the same rows. A file without splits is the same by any split's name."""
    there, here = examples.dataset, data.dataset
    paths = {(source or {}).get("path") for source in (data.source, examples.source)}
    if len(paths) > 1 or len(there) != len(here):
        return False
    return all(there[row][examples.image_column] == here[row][data.image_column] for row in (0, len(here) - 1))
