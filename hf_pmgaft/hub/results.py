"""A report's figures in the Hub's two formats: `model-index` of a card, and `.eval_results`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation.figure import Figure, plain_key
from ..evaluation.report import RobustnessReport, SetResult
from ..evaluation.tables import span
from ..files import write_whole

ZERO_SHOT_TASK = "zero-shot-image-classification"
CLASSIFICATION_TASK = "image-classification"
RETRIEVAL_TASK = "image-text-retrieval"
SEGMENTATION_TASK = "image-segmentation"
# The figures of a card, of each set and of the mean: attributes of `SetResult`, and what they are called.
FIGURES = {"clean_accuracy": "clean", "robust_accuracy": "robust"}


def model_index(report: RobustnessReport) -> list[EvalResult]:
    """The figures of a report, the means first, as a card's metadata has them.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> [(result.dataset_name, result.metric_type) for result in model_index(report)][-1]
        ('food', 'robust_accuracy')
    """
    means = [_mean_result(report, key) for key in FIGURES]
    return means + [_set_result(report, row, key) for row in report.sets for key in FIGURES]


def save_eval_results(
    output_dir: str | os.PathLike, report: RobustnessReport, benchmarks: Mapping[str, Mapping[str, tuple[str, str]]]
) -> list[Path]:
    """Writes figures in the Hub's newer format, `.eval_results/*.yaml`, which benchmarks gather into leaderboards.

    It is for sets whose data set on the Hub is a registered benchmark, that is, has an `eval.yaml` with its tasks; the
    Hub refuses others (https://huggingface.co/docs/hub/eval-results), so all figures are in the card's `model-index`
    too.

    Args:
        output_dir (`str`): The checkpoint's folder.
        report (`RobustnessReport`): Of the checkpoint.
        benchmarks (`dict`): By set and figure (`"clean_accuracy"`, `"robust_accuracy"`), the data set's Hub id and the
            task's id, as in `{"food": {"robust_accuracy": ("user/robust-food", "linf")}}`.

    Returns:
        `list[Path]`: The files, one per figure.

    Raises:
        ValueError: for a set or figure that the report does not have.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> files = save_eval_results(".", report, {"food": {"robust_accuracy": ("user/robust-food", "linf")}})
        >>> print(files[0])
        .eval_results/food_robust_accuracy.yaml
    """
    results = {row.name: row for row in report.sets}
    files = []
    for name, tasks in benchmarks.items():
        for key, (dataset_id, task_id) in tasks.items():
            if name not in results or key not in FIGURES:
                raise ValueError(
                    f"You passed the figure {key!r} of {name!r}, but the report has {sorted(FIGURES)} of "
                    f"{sorted(results)}. Pass one of these."
                )
            value = round(100 * getattr(results[name], key), 2)
            notes = listed(_circumstances(report, key, results[name]))
            entry = EvalResultEntry(dataset_id, task_id, value, notes=notes)

            file = Path(output_dir) / ".eval_results" / f"{name}_{key}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))
            files.append(file)
    return files


def mean_name(report: RobustnessReport) -> str:
    """The name of the mean over a report's sets."""
    return report.mean_title if report.of().figures == [Figure()] else "mean of all"


def listed(options: Mapping[str, Any]) -> str:
    """Options as a text, those without a value left out.

    Example:
        >>> listed({"eps": "4/255", "restarts": None, "num_steps": 20})
        'eps=4/255, num_steps=20'
    """
    return ", ".join(f"{key}={value}" for key, value in options.items() if value is not None)


def _mean_result(report: RobustnessReport, key: str) -> EvalResult:
    kind = report.sets[0].kind
    return _result(report, key, report.mean(key), mean_name(report), kind, kind, row=None)


def _set_result(report: RobustnessReport, row: SetResult, key: str) -> EvalResult:
    return _result(report, key, getattr(row, key), row.dataset, row.kind, row.figure.title, row)


def _result(
    report: RobustnessReport, key: str, value: float, dataset: str, kind: str, title: str, row: SetResult | None
) -> EvalResult:
    task = RETRIEVAL_TASK
    if Figure(kind).is_of_pixels:
        task = SEGMENTATION_TASK
    if kind == "accuracy":
        task = CLASSIFICATION_TASK if "head" in report.protocol else ZERO_SHOT_TASK

    name = f"{FIGURES[key].capitalize()} {title} (%)"
    if key == "robust_accuracy":
        name += " under " + ", ".join(spec.name for spec in report.headline_attacks)

    return EvalResult(
        task_type=task,
        dataset_type=dataset.replace(" ", "-"),
        dataset_name=dataset,
        metric_type=f"{FIGURES[key]}_{plain_key(kind)}",
        metric_value=round(100 * value, 2),
        metric_name=name,
        metric_args=_circumstances(report, key, row),
    )


def _circumstances(report: RobustnessReport, key: str, row: SetResult | None) -> dict[str, Any]:
    """All without which a figure means nothing; `row` is the set, `None` for the mean."""
    is_robust = key == "robust_accuracy"
    circumstances: dict[str, Any] = {}
    if is_robust:
        circumstances["attack"] = " + ".join(spec.name for spec in report.headline_attacks)
        if "attack_precision" in report.protocol:
            circumstances["attack_precision"] = report.protocol["attack_precision"]
    if "head" in report.protocol:
        circumstances["head"] = report.protocol["head"]["name"]

    if row is None:
        circumstances["num_sets"] = len(report.sets)
    else:
        circumstances["num_samples"] = row.num_samples
        if is_robust:
            circumstances["interval_95"] = str(span(*row.robust_interval))  # YAML knows no subclass
    circumstances["protocol"] = report.protocol_hash
    return circumstances
