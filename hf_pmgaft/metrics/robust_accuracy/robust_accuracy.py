"""Robust accuracy as a module of the `evaluate` library."""

import datasets
import evaluate

from hf_pmgaft.evaluation import wilson_interval

_DESCRIPTION = """
Share of images that are classified correctly clean and under every attack (worst case per image). It is an upper bound
of the true robust accuracy: state attack, norm and radius with it.
"""

_ARGUMENTS = """
Args:
    predictions (`list[int]`): Predicted classes of the clean images.
    adversarial_predictions (`list[list[int]]`): Per image, its predicted class under each attack.
    references (`list[int]`): True classes.

Returns:
    `clean_accuracy`, `robust_accuracy` (fractions), `robust_interval_95` (Wilson) and `num_samples`.

Example:
    >>> metric = evaluate.load("hf_pmgaft/metrics/robust_accuracy")
    >>> metric.compute(predictions=[0, 1], adversarial_predictions=[[0, 0], [1, 2]], references=[0, 1])
    {'clean_accuracy': 1.0, 'robust_accuracy': 0.5, 'robust_interval_95': [...], 'num_samples': 2}
"""


class RobustAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("int64"),
            "adversarial_predictions": datasets.Sequence(datasets.Value("int64")),
            "references": datasets.Value("int64"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_ARGUMENTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, adversarial_predictions, references) -> dict:
        rows = list(zip(predictions, adversarial_predictions, references, strict=True))
        if not all(len(row[1]) for row in rows):
            raise ValueError(
                "An image has no prediction under attack. Pass one per attack in adversarial_predictions."
            )
        clean = sum(prediction == label for prediction, _, label in rows) / len(rows)
        robust = sum(all(p == label for p in (prediction, *attacked)) for prediction, attacked, label in rows) / len(
            rows
        )
        return {
            "clean_accuracy": clean,
            "robust_accuracy": robust,
            "robust_interval_95": list(wilson_interval(robust, len(rows))),
            "num_samples": len(rows),
        }
