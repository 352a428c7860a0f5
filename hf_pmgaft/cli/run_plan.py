"""What a recipe with its flags will run, as far as can be told without its data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..config import PMGAFTConfig
from .train_arguments import DataArguments, ModelArguments


@dataclass(frozen=True)
class Plan:
    """What a recipe with its flags runs.

    Attributes:
        model_args, data_args, config: The parsed options of `pmgaft train`.
        images (`int`, *optional*): Images that are trained on, if that is known.
        steps (`int`, *optional*): Optimizer steps, if that is known.
        evaluated (`int`): Images of all evaluation sets together; 0 if unknown.
    """

    model_args: ModelArguments
    data_args: DataArguments
    config: PMGAFTConfig
    images: int | None
    steps: int | None
    evaluated: int

    @property
    def batch(self) -> int:
        """Images of one optimizer step."""
        return self.config.train_batch_size * self.config.gradient_accumulation_steps * self.config.world_size


def make_plan(
    model_args: ModelArguments, data_args: DataArguments, config: PMGAFTConfig, train_images: dict[str, int]
) -> Plan:
    """What a run with these options does, as far as can be told without its data.

    Args:
        model_args, data_args, config: The parsed options of `pmgaft train`.
        train_images (`dict[str, int]`): Sizes of training sets, by the names that recipes give them.
    """
    images = train_images.get(data_args.dataset_name)
    if data_args.shots is not None:
        classes = _num_classes(data_args.dataset_name)
        images = None if classes is None else data_args.shots * classes
    if data_args.only_classes is not None or data_args.only_rows is not None:
        images = None

    plan = Plan(model_args, data_args, config, images, None, _num_evaluated(data_args))
    if config.max_steps > 0:
        return replace(plan, steps=config.max_steps)
    if images is None:
        return plan
    steps = images // plan.batch if config.dataloader_drop_last else math.ceil(images / plan.batch)
    return replace(plan, steps=math.ceil(config.num_train_epochs * steps))


def _num_classes(dataset_name: str) -> int | None:
    """How many classes a known set has."""
    from ..suites.known import find_known_set
    from ..suites.numbering import kept_class_names

    known = find_known_set(dataset_name)
    return None if known is None else len(kept_class_names(known.entry))


def _num_evaluated(data_args: DataArguments) -> int:
    """The images of a suite's sets under the limit."""
    from ..suites.suite import read_suite

    if not data_args.suite:
        return 0
    entries = read_suite(data_args.suite)
    names = data_args.suite_sets or list(entries)
    sizes = [entries[name].get("num_images", 0) for name in names]
    largest = [size[-1] if isinstance(size, (list, tuple)) else size for size in sizes]
    return sum(min(size, data_args.limit or size) for size in largest)
