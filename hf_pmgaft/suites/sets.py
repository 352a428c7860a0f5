"""One evaluation set by the text that a command line names it by, `NAME[:config][@split]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.evaluation_sets import EvaluationImages, RetrievalDataset, ZeroShotDataset
from ..data.sources import load_images, parse_set
from ..prompts import DEFAULT_PROMPT_TEMPLATES
from .loading import check_limit, limited_sample_ids, load_entry
from .suite import read_suite, shipped_suites


def load_set(
    text: str,
    processor: Any,
    *,
    class_names: Sequence[str] | None = None,
    prompt_templates: str | Sequence[str] | None = None,
    native_size: bool = False,
    sample_ids: Sequence[int] | None = None,
    limit: int | None = None,
    default_split: str = "test",
) -> ZeroShotDataset:
    """Loads a set of labelled images for evaluation, under the name that [`set_name`] gives it.

    Args:
        text (`str`): `NAME[:config][@split]`, with a name as [`load_images`] takes it, or `SUITE:NAME` for one set of
            a suite, such as `paper16:dtd`. A suite's set comes with its split, class names, templates and sizes.
        processor (`CLIPProcessor`): Resizes and crops.
        class_names (`list[str]`, *optional*): Those of the set's `ClassLabel` if not given.
        prompt_templates (`str` or `list[str]`, *optional*): Each with one `{}`. If not given those of the suite, for
            other sets `DEFAULT_PROMPT_TEMPLATES`.
        native_size (`bool`): Attack the images at their own size.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given.
        limit (`int`, *optional*): Evaluate so many images, at most 1000: the first of the suite's stored order, of
            other sets the first of the order by hash ([`draw_sample_ids`]).
        default_split (`str`): The split if the text names none.

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
    name, config, split = parse_set(text, default_split="")
    if _is_suite(name) and config:
        return _load_set_of_suite(
            name,
            config,
            processor,
            split=split,
            class_names=class_names,
            prompt_templates=prompt_templates,
            native_size=native_size,
            sample_ids=sample_ids,
            limit=limit,
        )

    images = load_images(name, config, split or default_split)
    if limit is not None:
        sample_ids = limited_sample_ids(set_name(text), len(images), limit)
    return ZeroShotDataset(
        images,
        processor,
        class_names=class_names,
        prompt_templates=DEFAULT_PROMPT_TEMPLATES if prompt_templates is None else prompt_templates,
        name=set_name(text),
        native_size=native_size,
        sample_ids=sample_ids,
    )


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
) -> RetrievalDataset:
    """Loads a set of images with captions, which are retrieved by each other.

    Args:
        text (`str`): `NAME[:config][@split]`, with a name as [`load_images`] takes it.
        processor (`CLIPProcessor`): Resizes and crops; its tokenizer cuts the captions.
        caption_column (`str` or `list[str]`): See [`RetrievalDataset`].
        name (`str`, *optional*): How the set is called; what [`set_name`] says if not given. It is needed where the
            same images are also classified, since two sets of one report cannot share a name.
        prompt_templates, native_size, sample_ids, target: See [`RetrievalDataset`].
        default_split (`str`): The split if the text names none.

    Raises:
        ValueError: for columns that hold no captions, and rows outside the set.

    Example:
        >>> dataset.add_column("caption", ["the red disc"] * len(dataset)).save_to_disk("shapes")
        >>> data = load_captioned_set("shapes", processor, name="shapes captions")
        >>> data.name, data[0]["captions"]
        ('shapes captions', ['the red disc'])
    """
    path, config, split = parse_set(text, default_split)
    return RetrievalDataset(
        load_images(path, config, split),
        processor,
        caption_column,
        prompt_templates=prompt_templates,
        name=set_name(text) if name is None else name,
        native_size=native_size,
        sample_ids=sample_ids,
        target=target,
    )


def set_name(text: str) -> str:
    """Names a set in tables and reports: by its configuration or, without one, by the last part of its name.

    Example:
        >>> set_name("ethz/food101@validation"), set_name("examples/emoji/data:animals"), set_name("paper16:dtd")
        ('food101', 'animals', 'dtd')
    """
    name, config, _ = parse_set(text)
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


def _is_suite(name: str) -> bool:
    """Whether a name stands for a suite: a shipped one, unless a folder is called so, or a YAML file of one's own."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.is_file()
    return name in shipped_suites() and not path.exists()


def _load_set_of_suite(
    suite: str,
    name: str,
    processor: Any,
    *,
    split: str,
    class_names: Sequence[str] | None,
    prompt_templates: str | Sequence[str] | None,
    native_size: bool,
    sample_ids: Sequence[int] | None,
    limit: int | None,
) -> ZeroShotDataset:
    """One set of a suite, which comes with all but the templates and the choice of rows."""
    entries = read_suite(suite)
    if name not in entries:
        raise ValueError(f"The suite {suite!r} has no set {name!r}. It has: {', '.join(entries)}.")

    stated = {"a split": split, "class_names": class_names is not None, "native_size": native_size}
    passed = [option for option, is_passed in stated.items() if is_passed]
    if passed:
        raise ValueError(
            f"You passed {' and '.join(passed)} for {suite}:{name}, which comes with what its suite states. Leave "
            f"it out, or name the set by its place, {entries[name]['path']}."
        )

    entry = entries[name]
    if prompt_templates is not None:
        entry = {**entry, "prompt_template": prompt_templates}
    return load_entry(name, entry, processor, limit=limit, sample_ids=sample_ids)
