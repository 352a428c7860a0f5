"""What a user passes as data -> what the trainer takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import EvalPrediction

from ..config import PMGAFTConfig
from ..data.collator import Collator, stack
from ..data.evaluation_sets import EvaluationImages, ZeroShotDataset
from ..data.training_sets import training_examples
from ..objectives import Objective
from ..zero_shot.classifier import ZeroShotClassifier


def examples_for(
    objective: Objective, dataset: Any, processor: Any, class_names: Sequence[str] | None, args: PMGAFTConfig
) -> Any:
    """The training set as an objective reads it: with captions where it pairs images with them."""
    if dataset is None:
        return None
    caption_column = "auto" if objective.uses_captions else None
    examples = training_examples(
        dataset, processor, class_names, caption_column=caption_column, needs_labels=objective.uses_text
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
    datasets: Any, processor: Any, prompt_templates: Sequence[str]
) -> dict[str, EvaluationImages] | None:
    """Evaluation sets by name; labelled images are read with the templates of training."""
    if datasets is None or (isinstance(datasets, dict) and not datasets):
        return None
    if not isinstance(datasets, dict):
        datasets = {getattr(datasets, "name", "set"): datasets}

    sets = {}
    for name, data in datasets.items():
        if not isinstance(data, EvaluationImages):
            data = ZeroShotDataset(data, processor, prompt_templates=prompt_templates, name=name)
        sets[name] = data
    return sets


@torch.no_grad()
def clean_predictions(classifier: ZeroShotClassifier, data: ZeroShotDataset, batch_size: int) -> EvalPrediction:
    """Clean logits and labels of a whole set, as `compute_metrics` takes them."""
    logits, labels = [], []
    for start in range(0, len(data), batch_size):
        examples = [data[i] for i in range(start, min(start + batch_size, len(data)))]
        images = torch.stack([example["images"] for example in examples]).to(classifier.device)
        logits.append(classifier(images).cpu())
        labels += [example["labels"] for example in examples]
    return EvalPrediction(predictions=torch.cat(logits).numpy(), label_ids=torch.tensor(labels).numpy())
