"""What a user passes as data -> what the trainer takes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import EvalPrediction

from ..config import PMGAFTConfig
from ..data.collator import Collator, stack
from ..data.evaluation_sets import EvaluationImages, ZeroShotDataset
from ..data.training_sets import training_examples
from ..evaluation.reader import Reader
from ..objectives import Objective
from ..zero_shot.classifier import ZeroShotClassifier


def examples_for(
    objective: Objective,
    dataset: Any,
    processor: Any,
    class_names: Sequence[str] | None,
    args: PMGAFTConfig,
    accept_any_class_names: bool = False,
) -> Any:
    """The training set as an objective reads it: with captions where it pairs images with them."""
    if dataset is None:
        return None
    caption_column = "auto" if objective.uses_captions else None
    examples = training_examples(
        dataset,
        processor,
        class_names,
        caption_column=caption_column,
        needs_labels=objective.uses_text,
        accept_any_class_names=accept_any_class_names,
    )
    if caption_column and isinstance(examples, IterableDataset):
        # Accelerate would join the processes' batches, whose captions differ in length, and deal them out.
        args.accelerator_config.dispatch_batches = False
    return examples


def collator_for(
    objective: Objective, given: Callable | None, examples: Any, processor: Any, class_names: Sequence[str] | None
) -> Callable:
    """The collator that checks batches of the training set, around the one that was given."""
    if examples is None:
        return given or stack
    num_classes = None if class_names is None else len(class_names)
    return Collator(processor, num_classes, given, objective.uses_text)


def evaluation_sets(
    datasets: Any,
    processor: Any,
    prompt_templates: Sequence[str],
    known: Mapping[str, EvaluationImages] | None = None,
    accept_any_class_names: bool = False,
) -> dict[str, EvaluationImages] | None:
    """Evaluation sets by name; labelled images are read with the templates of training.

    The keys of a dict name its sets, also those that have a name of their own.

    Args:
        datasets: A set, a dict of sets, a list of ready ones, or a name of those that are known; nothing if empty.
        processor (`CLIPProcessor`), prompt_templates (`list[str]`): Of training.
        known (`dict`, *optional*): Sets that a text may name.
        accept_any_class_names (`bool`): Whether labelled images may have names that a text tower cannot know.

    Raises:
        TypeError: for what is no set.
        ValueError: for an unknown name, or one that two sets share.
    """
    if datasets is None or (isinstance(datasets, dict | list | tuple) and not datasets):
        return None
    if isinstance(datasets, str):
        return {datasets: _known_set(datasets, known or {})}

    named = datasets
    if not isinstance(datasets, Mapping):
        named = _by_their_names(datasets)
    options = {"prompt_templates": prompt_templates, "accept_any_class_names": accept_any_class_names}
    return {name: _evaluation_set(name, data, processor, **options) for name, data in named.items()}


def _known_set(name: str, known: Mapping[str, EvaluationImages]) -> EvaluationImages:
    if name not in known:
        raise ValueError(
            f"You passed the evaluation set {name!r}, a text that names none of the trainer's sets "
            f"({', '.join(sorted(known)) or 'there are none'}). Pass one of these names, or a loaded set: "
            "`load_images(name)`."
        )
    return known[name]


def _by_their_names(datasets: Any) -> dict[str, Any]:
    """One set, or a list of ready ones, by the names that they have."""
    is_list = isinstance(datasets, list | tuple) and not isinstance(datasets[0], Mapping)  # those are rows
    if not is_list:
        return {getattr(datasets, "name", "set"): datasets}

    nameless = [type(data).__name__ for data in datasets if not isinstance(data, EvaluationImages)]
    if nameless:
        raise TypeError(
            f"You passed a list of evaluation sets with a {nameless[0]}, which has no name for its metrics. Pass a "
            "dict of sets by name."
        )
    names = [data.name for data in datasets]
    if len(set(names)) < len(names):
        raise ValueError(
            f"You passed evaluation sets of the names {names}, so metrics of two would have the same. Pass a dict of "
            "sets by name."
        )
    return dict(zip(names, datasets, strict=True))


def _evaluation_set(name: Any, data: Any, processor: Any, **options: Any) -> EvaluationImages:
    if not isinstance(name, str) or not name:
        raise TypeError(f"You passed an evaluation set under the key {name!r}, which names no metric. Pass a text.")
    if isinstance(data, str | bytes | os.PathLike) or not (hasattr(data, "__getitem__") or hasattr(data, "__iter__")):
        raise TypeError(
            f"You passed the evaluation set {name!r} as a {type(data).__name__}, which holds no rows. Pass a loaded "
            "set: `load_images(name)`."
        )
    if isinstance(data, Mapping):
        raise TypeError(
            f"You passed the evaluation set {name!r} as a dict, such as of splits. Pass one set under each name, such "
            f"as {name}['test']."
        )

    if not isinstance(data, EvaluationImages):
        return ZeroShotDataset(data, processor, name=name, **options)
    if data.name == name:
        return data
    renamed = copy.copy(data)  # the user's own keeps its name
    renamed.name = name
    return renamed


@torch.no_grad()
def clean_predictions(
    classifier: ZeroShotClassifier, data: ZeroShotDataset, batch_size: int, num_workers: int = 0
) -> EvalPrediction:
    """Clean logits and labels of a whole set, as `compute_metrics` takes them; `num_workers` processes read it."""
    logits, labels = [], []
    lots = (range(start, min(start + batch_size, len(data))) for start in range(0, len(data), batch_size))
    with Reader(data, num_workers) as reader:
        for batch in reader.stream(lots):
            logits.append(classifier(batch.to(classifier.device).images).cpu())
            labels.append(batch.labels)
    return EvalPrediction(predictions=torch.cat(logits).numpy(), label_ids=torch.cat(labels).numpy())
