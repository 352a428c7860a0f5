"""One training set by the text that a command line names it by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..data.sources import load_images
from ..data.training_sets import training_examples
from ..prompts import DEFAULT_PROMPT_TEMPLATES
from .known import KnownSet, find_known_set
from .loading import open_entry, place_of, resize_of
from .masked import is_masked
from .numbering import kept_class_names, label_column_of
from .sets import load_named_images

logger = logging.getLogger(__name__)


def load_training_set(
    text: str,
    processor: Any,
    *,
    class_names: Sequence[str] | str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | Sequence[str] | None = None,
    needs_labels: bool = True,
    resize: int | None = None,
    streaming: bool = False,
    accept_any_class_names: bool = False,
) -> Any:
    """Loads a set to train on. A known set comes with the class names, checked labels and columns of its suite.

    Args:
        text (`str`): `NAME[:config][@split][#revision]`, with a name as [`load_images`] takes it, or the name of a
            known set, such as `tiny_imagenet` (see [`find_known_set`]). The split is the suite's `train_split`, for
            other sets `train`, if the text names none.
        processor (`CLIPProcessor`): The model's.
        class_names, image_column, label_column, caption_column, needs_labels, accept_any_class_names: See
            [`training_examples`]; the first three are not for known sets.
        resize (`int`, *optional*): Shortest edge before the processor's centre crop; that of the suite, or the
            processor's own, if not given.
        streaming (`bool`): Whether to read while training.

    Returns:
        What [`training_examples`] makes of the rows.

    Raises:
        ValueError: for a known set without a training split or with labels in another order, for options that
            contradict its suite, and for what cannot be trained on.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> load_training_set("shapes", processor).class_names
        ['red disc', 'green disc', 'blue square', 'yellow square']
    """
    options = {"caption_column": caption_column, "needs_labels": needs_labels}
    load = partial(load_images, streaming=streaming)
    known = find_known_set(text)
    if known is None:
        options.update(class_names=class_names, image_column=image_column, label_column=label_column, resize=resize)
        options["accept_any_class_names"] = accept_any_class_names
        images, source = load_named_images(text, "train", load)
        examples = training_examples(images, processor, **options)
        examples.source = source
        return examples

    stated = {"class_names": class_names, "image_column": image_column, "label_column": label_column}
    passed = [option for option, value in stated.items() if value is not None]
    if passed:
        raise ValueError(
            f"You passed {' and '.join(passed)} for {known.text}, which comes with what its suite states. Leave it "
            f"out, or name the set by its place, {known.place}."
        )
    options["resize"] = resize_of(known.entry, processor) if resize is None else resize
    return _examples(known, processor, options, load)


def training_templates(text: str) -> list[str]:
    """Gives the templates by which a known set's class names become prompts; of other sets the usual ones.

    Example:
        >>> training_templates("dtd"), training_templates("user/photos")
        (['A surface with a {} texture.'], ['This is a photo of a {}'])
    """
    known = find_known_set(text)
    templates = DEFAULT_PROMPT_TEMPLATES if known is None else known.entry.get("prompt_template")
    templates = templates or DEFAULT_PROMPT_TEMPLATES
    return [templates] if isinstance(templates, str) else list(templates)


def _examples(known: KnownSet, processor: Any, options: dict[str, Any], load: Callable[..., Any]) -> Any:
    """Examples of a known set's training split."""
    entry = known.to_train_on()
    place = place_of(known.name, entry)
    images = open_entry(known.name, entry, place, load)
    options["image_column"] = entry.get("image_column")
    if not is_masked(entry):  # of masks the images are trained on alone
        options["class_names"] = kept_class_names(entry)
        options["label_column"] = label_column_of(entry, images)
        options["accept_any_class_names"] = entry.get("accept_any_class_names", False)
    classes = len(kept_class_names(entry))
    logger.info("%s is read from %s@%s: %d classes.", known.text, known.place, entry["split"], classes)
    examples = training_examples(images, processor, **options)
    examples.source = place.describe(entry.get("config"), entry["split"])
    return examples
