"""Robust accuracy as a module of the `evaluate` library, from predictions clean and under attack.

It is a plug-in: it imports the package, and nothing of the package imports it. Its imports are absolute, since
`evaluate.load` copies this file into a folder of its own.
"""

from collections.abc import Sequence

import datasets
import evaluate

from hf_pmgaft.evaluation.intervals import wilson_interval
from hf_pmgaft.evaluation.outcomes import worst_case

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
    """Clean and robust accuracy, as `evaluate.load` gives it."""

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
        if not all(len(predicted) for predicted in adversarial_predictions):
            raise ValueError(
                "An image has no prediction under attack. Pass one per attack in adversarial_predictions."
            )
        clean = [prediction == label for prediction, label in zip(predictions, references, strict=True)]
        attacked = [
            all(prediction == label for prediction in predicted)
            for predicted, label in zip(adversarial_predictions, references, strict=True)
        ]
        return self.figures(clean, attacked)

    @classmethod
    def figures(cls, clean: Sequence[bool], attacked: Sequence[bool]) -> dict:
        """Accuracies and interval from verdicts per image: right or wrong clean, and under attack."""
        robust = worst_case(clean, attacked)
        accuracy = sum(robust) / len(robust)
        return {
            "clean_accuracy": sum(clean) / len(clean),
            "robust_accuracy": accuracy,
            "robust_interval_95": list(wilson_interval(accuracy, len(robust))),
            "num_samples": len(robust),
        }
