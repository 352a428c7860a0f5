"""What becomes of arguments of `TrainingArguments` that are made for other losses and other evaluations."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import TrainingArguments

ROBUST_ACCURACY = "eval_mean_robust_accuracy"
# Schedules that follow a metric of the evaluation.
FOLLOWS_A_METRIC = ("greedy", "reduce_lr_on_plateau")
# Endings of metrics of which more is better.
MORE_IS_BETTER = ("_accuracy", "_recall", "_kept_out")
# Optimizers that read `optim_target_modules`.
LAYERWISE_OPTIMIZERS = ("galore", "apollo")

# What an argument does elsewhere and cannot do here, and what to do in its place. Most would be passed by in silence.
PASSED_BY: dict[str, tuple[str, str]] = {
    # Losses of language models, and of labels that no objective hands over
    "label_smoothing_factor": ("smooths a loss that no objective computes", "See objective_kwargs for its options"),
    "neftune_noise_alpha": ("adds noise to token embeddings, which images have not", "See augmentation and ema_decay"),
    "use_liger_kernel": ("exchanges layers of language models", "torch_compile=True makes vision blocks faster"),
    "liger_kernel_config": ("exchanges layers of language models", "torch_compile=True makes vision blocks faster"),
    "use_cache": ("keeps what a text generator computed, and nothing is generated", "Leave it out"),
    "include_num_input_tokens_seen": ("counts tokens, and images have none", "Logs count samples and steps"),
    "length_column_name": ("names the lengths of texts, and images are of one size", "Leave it out"),
    "label_names": (
        "names what Trainer's own evaluation reads, which is not run",
        "Label columns are found by their names, or pass label_column to training_examples or ZeroShotDataset",
    ),
    # Evaluation, which is that of `evaluate_robustness`
    "bf16_full_eval": ("evaluates in bfloat16, and verdicts are of float32", "bf16=True trains in it"),
    "fp16_full_eval": ("evaluates in float16, and verdicts are of float32", "fp16=True trains in it"),
    "prediction_loss_only": ("asks for a loss, and evaluation gives accuracies", "Leave it out"),
    "eval_do_concat_batches": ("keeps batches apart, and compute_metrics gets whole sets", "Leave it out"),
    "eval_use_gather_object": ("gathers outputs of batches, and processes exchange verdicts", "Leave it out"),
    "include_for_metrics": ("hands inputs or losses to compute_metrics, which gets logits and labels", "Leave it out"),
    "batch_eval_metrics": ("calls compute_metrics batch by batch, and it gets whole sets", "Leave it out"),
    "do_predict": ("asks a script to predict, and none does", "Call `trainer.predict(dataset)`"),
    # What would make it another run in silence
    "auto_find_batch_size": (
        "halves the batch when memory ends and begins anew, from the weights of the steps made so far",
        "Lower per_device_train_batch_size and raise gradient_accumulation_steps",
    ),
    "ignore_data_skip": ("lets a resumed run see other images than the run that it goes on with", "Leave it out"),
    "remove_unused_columns": ("drops image columns and sample ids, by which noise is drawn", "Leave it out"),
    "parallelism_config": ("splits texts or layers, through which no attack runs here", "Use DDP, DeepSpeed or FSDP2"),
}


def check_arguments(args: TrainingArguments) -> None:
    """Raises `ValueError` for arguments that have no meaning here, or that would be passed by.

    Args:
        args (`PMGAFTConfig`): As it was passed, before its `super().__post_init__()`.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> args = PMGAFTConfig(use_cpu=True)
        >>> check_arguments(args)
        >>> args.label_smoothing_factor = 0.1
        >>> check_arguments(args)
        Traceback (most recent call last):
        ValueError: You passed label_smoothing_factor=0.1, which smooths a loss that no objective computes. See ...
    """
    for field in fields(args):
        value = getattr(args, field.name)
        if field.name in PASSED_BY and not _is_left_out(value, field):
            reason, advice = PASSED_BY[field.name]
            raise ValueError(f"You passed {field.name}={value!r}, which {reason}. {advice}.")

    if args.train_sampling_strategy == "group_by_length":
        raise ValueError(
            "You passed train_sampling_strategy='group_by_length', which groups texts of a length, and images are of "
            "one size. Pass 'random' or 'sequential'."
        )
    optimizer = _text(args.optim)
    if args.optim_target_modules is not None and not any(name in optimizer for name in LAYERWISE_OPTIMIZERS):
        raise ValueError(
            f"You passed optim_target_modules={args.optim_target_modules!r}, which the optimizer {optimizer!r} does "
            "not read, so as many weights would be trained as without it. Leave it out; `tuning` says what is "
            "trained, and 'last_blocks' and 'peft' choose modules."
        )


def _is_left_out(value: Any, field: Field) -> bool:
    """Whether an argument has its default, or is switched off."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return value == default or (default is not True and value in (None, False))


# ---- Which model is the best ----


def choose_by_robust_accuracy(args: TrainingArguments) -> None:
    """Names the mean robust accuracy as what is best, where something has to know and nobody says.

    Trainer's own default is a loss, which evaluation does not give.
    """
    saves_the_best = args.load_best_model_at_end or _text(args.save_strategy) == "best"
    follows = _text(args.lr_scheduler_type) in FOLLOWS_A_METRIC
    if args.metric_for_best_model is None and (saves_the_best or follows):
        args.metric_for_best_model = ROBUST_ACCURACY


def check_direction(args: TrainingArguments) -> None:
    """Checks that more accuracy is better, and tells a schedule that follows a metric so.

    Args:
        args (`PMGAFTConfig`): After its `super().__post_init__()`.

    Raises:
        ValueError: where the worst model would be the best one, or a schedule looks the other way.
    """
    metric = args.metric_for_best_model
    if metric is not None and metric.endswith(MORE_IS_BETTER) and not args.greater_is_better:
        raise ValueError(
            f"You passed greater_is_better={args.greater_is_better} with metric_for_best_model={metric!r}, so the "
            "worst model would be the best one. Leave greater_is_better out."
        )

    schedule = _text(args.lr_scheduler_type)
    if schedule not in FOLLOWS_A_METRIC:
        return
    # The schedule's own default is that less is better.
    right = "max" if args.greater_is_better else "min"
    options = args.lr_scheduler_kwargs or {}
    if options.get("mode", right) != right:
        raise ValueError(
            f"You passed the mode {options['mode']!r} in lr_scheduler_kwargs of {schedule}, by which the learning "
            f"rate would fall while {metric} gets better. Leave the mode out."
        )
    args.lr_scheduler_kwargs = {**options, "mode": right}


def _text(value: Any) -> str:
    """The text of a choice that may be an enumeration already."""
    return str(getattr(value, "value", value))
