"""One evaluation set by the text that a command line names it by, `NAME[:config][@split]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.evaluation_sets import EvaluationImages, RetrievalDataset, ZeroShotDataset
from ..data.parquet_rows import with_images
from ..data.places import look_up
from ..data.segmentation_sets import SegmentationDataset
from ..data.sources import load_for_some_rows, load_images, parse_set, split_revision
from ..prompts import DEFAULT_PROMPT_TEMPLATES
from ..registry import check_choice
from .known import KnownSet, find_known_set, hint_at_known_set
from .loading import check_limit, limited_sample_ids, load_entry
from .masked import check_mask_options, holds_masks, is_masked, names_beside

EVALUATED, TRAINED_ON = "split", "train_split"  # parts of a known set, as its suite calls them


def load_set(
    text: str,
    processor: Any,
    *,
    class_names: Sequence[str] | str | None = None,
    prompt_templates: str | Sequence[str] | None = None,
    native_size: bool = False,
    sample_ids: Sequence[int] | None = None,
    limit: int | None = None,
    default_split: str = "test",
    part: str = EVALUATED,
    image_column: str | None = None,
    label_column: str | None = None,
    accept_any_class_names: bool = False,
    **of_masks: Any,
) -> EvaluationImages:
    """Loads a set of labelled images, or of images with masks, for evaluation, under the name of [`set_name`].

    Rows have masks if `mask_column` names their column, or if a usual column holds images or arrays and none holds
    labels of whole images. Their class names may lie beside them, in the folder's classes.txt or classes.json.

    Args:
        text (`str`): `NAME[:config][@split][#revision]`, with a name as [`load_images`] takes it; or the name of a
            known set, such as `dtd` or `paper16:dtd`, which comes with the split, class names, templates and sizes
            that its suite states (see [`find_known_set`]).
        processor (`CLIPProcessor`): Resizes and crops.
        class_names (`list[str]` or `str`, *optional*): See [`ZeroShotDataset`]; those of the set's `ClassLabel` if not
            given.
        prompt_templates (`str` or `list[str]`, *optional*): Each with one `{}`. If not given those of the suite, for
            other sets `DEFAULT_PROMPT_TEMPLATES`.
        native_size (`bool`): Attack the images at their own size.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given.
        limit (`int`, *optional*): Evaluate so many images, at most 1000: the first of the suite's stored order, of
            other sets the first of the order by hash ([`draw_sample_ids`]).
        default_split (`str`): The split if the text names none.
        part (`str`): Which split of a known set: `"split"`, which is evaluated, or `"train_split"`, from which a head
            is fitted and which the text may name.
        image_column, label_column (`str`, *optional*): The usual names if not given.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.
        of_masks: What [`SegmentationDataset`] takes beside: `mask_column`, `ignore_index`, `reduce_zero_label`,
            `mask_values`, `background_threshold`, `short_edge`. Of a known set the last two may be passed.

    Returns:
        [`ZeroShotDataset`] or [`SegmentationDataset`].

    Raises:
        ValueError: for a set that cannot be evaluated, and options that do not go with it.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> data = load_set("shapes", processor, prompt_templates="a photo of the {}")
        >>> data.name, len(data), data.class_names[0]
        ('shapes', 16, 'red disc')
    """
    if limit is not None and sample_ids is not None:
        raise ValueError(f"You passed limit={limit} and sample_ids, which both choose the images. Pass one of them.")
    check_limit(limit)
    check_choice("part", part, (EVALUATED, TRAINED_ON))
    known = find_known_set(text)
    if known is not None:
        return _load_known_set(
            known,
            processor,
            part,
            class_names=class_names,
            columns=image_column or label_column,
            prompt_templates=prompt_templates,
            native_size=native_size,
            sample_ids=sample_ids,
            limit=limit,
            of_masks=of_masks,
        )

    images, source = load_named_images(text, default_split, load_images if limit is None else load_for_some_rows)
    if limit is not None:
        sample_ids = limited_sample_ids(set_name(text), len(images), limit)
        images = with_images(images, sample_ids)
    options = {
        "prompt_templates": DEFAULT_PROMPT_TEMPLATES if prompt_templates is None else prompt_templates,
        "name": set_name(text),
        "image_column": image_column,
        "sample_ids": sample_ids,
        "accept_any_class_names": accept_any_class_names,
    }
    data: EvaluationImages
    if of_masks.get("mask_column") or (label_column is None and holds_masks(images)):
        folder, configuration, _ = parse_set(split_revision(text)[0])
        if class_names is None and configuration is None:  # of which there may be several in a folder
            class_names = names_beside(folder)
        data = SegmentationDataset(images, processor, class_names, **options, **of_masks)
    else:
        check_mask_options(text, of_masks)
        options.update(class_names=class_names, label_column=label_column, native_size=native_size)
        data = ZeroShotDataset(images, processor, **options)
    data.source = source
    return data


def load_captioned_set(
    text: str,
    processor: Any,
    caption_column: str | Sequence[str] = "auto",
    *,
    name: str | None = None,
    prompt_templates: str | Sequence[str] = "{}",
    native_size: bool = False,
    sample_ids: Sequence[int] | None = None,
    target: str | None = None,
    default_split: str = "test",
    image_column: str | None = None,
) -> RetrievalDataset:
    """Loads a set of images with captions, which are retrieved by each other.

    Args:
        text (`str`): `NAME[:config][@split][#revision]`, with a name as [`load_images`] takes it.
        processor (`CLIPProcessor`): Resizes and crops; its tokenizer cuts the captions.
        caption_column (`str` or `list[str]`): See [`RetrievalDataset`].
        name (`str`, *optional*): How the set is called; what [`set_name`] says if not given. It is needed where the
            same images are also classified, since two sets of one report cannot share a name.
        prompt_templates, native_size, sample_ids, target: See [`RetrievalDataset`].
        default_split (`str`): The split if the text names none.
        image_column (`str`, *optional*): The usual names if not given.

    Raises:
        ValueError: for columns that hold no captions, and rows outside the set.

    Example:
        >>> dataset.add_column("caption", ["the red disc"] * len(dataset)).save_to_disk("shapes")
        >>> data = load_captioned_set("shapes", processor, name="shapes captions")
        >>> data.name, data[0]["captions"]
        ('shapes captions', ['the red disc'])
    """
    known = find_known_set(text)
    if known is not None:
        raise ValueError(
            f"You passed {text!r} for retrieval, but {known.text} has class names and no captions. Pass it "
            "in --eval_sets, and here a set with a column of captions."
        )
    images, source = load_named_images(text, default_split)
    data = RetrievalDataset(
        images,
        processor,
        caption_column,
        prompt_templates=prompt_templates,
        name=set_name(text) if name is None else name,
        native_size=native_size,
        sample_ids=sample_ids,
        target=target,
        image_column=image_column,
    )
    data.source = source
    return data


def load_named_images(
    text: str, default_split: str = "test", load: Callable[..., Any] = load_images
) -> tuple[Any, dict[str, Any]]:
    """Loads the rows that `NAME[:config][@split][#revision]` names, by [`load_images`] or what takes the same.

    Returns:
        `tuple`: The rows, and what reports record of where they are from: path, configuration, split and commit.

    Raises:
        ValueError: for a set that is gated, not there, or without such a revision.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> rows, source = load_named_images("shapes")
        >>> rows.num_rows, source
        (16, {'path': 'shapes', 'split': 'test'})
    """
    name, revision = split_revision(text)
    name, config, split = parse_set(name, default_split)
    hint_at_known_set(name)
    place = look_up(name, revision)
    if place.problem:
        raise ValueError(f"You passed {text!r}, but {place.problem}")
    return load(name, config, split, revision=place.pinned), place.describe(config, split)


def set_name(text: str) -> str:
    """Names a set in tables and reports: by its configuration or, without one, by the last part of its name.

    Example:
        >>> set_name("ethz/food101@validation"), set_name("examples/emoji/data:animals"), set_name("paper16:dtd")
        ('food101', 'animals', 'dtd')
    """
    name, config, _ = parse_set(split_revision(text)[0])
    return config or Path(name).stem


def check_set_names(sets: Sequence[EvaluationImages]) -> None:
    """Raises `ValueError` for sets that share a name, of which a report would keep one.

    Example:
        >>> data = ZeroShotDataset(dataset, processor, name="shapes")
        >>> check_set_names([data, data])
        Traceback (most recent call last):
        ValueError: You passed several eval_sets of the name shapes, of which the report would keep one. Rename ...
    """
    names = [data.name for data in sets]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"You passed several eval_sets of the name {', '.join(repeated)}, of which the report would keep one. "
            "Rename their folders or files, or evaluate them apart."
        )


def _load_known_set(
    known: KnownSet,
    processor: Any,
    part: str,
    *,
    class_names: Sequence[str] | str | None,
    columns: str | None,
    prompt_templates: str | Sequence[str] | None,
    native_size: bool,
    sample_ids: Sequence[int] | None,
    limit: int | None,
    of_masks: Mapping[str, Any],
) -> EvaluationImages:
    """One set of a suite, which comes with all but the templates and the choice of rows."""
    is_evaluated = part == EVALUATED
    stated = {
        "a split": is_evaluated and known.split is not None,
        "class_names": class_names is not None,
        "columns": columns,
        "native_size": native_size,
    }
    passed = [option for option, is_passed in stated.items() if is_passed]
    if passed:
        raise ValueError(
            f"You passed {' and '.join(passed)} for {known.text}, which comes with what its suite states. Leave "
            f"it out, or name the set by its place, {known.place}."
        )

    check_mask_options(known.text, of_masks, is_known=is_masked(known.entry))

    entry = {**(known.entry if is_evaluated else known.to_train_on()), **of_masks}
    if prompt_templates is not None:
        entry = {**entry, "prompt_template": prompt_templates}
    return load_entry(known.name, entry, processor, limit=limit, sample_ids=sample_ids)
