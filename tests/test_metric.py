"""The module for the `evaluate` library."""

from pathlib import Path

import evaluate
import pytest

import hf_pmgaft


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    folder = Path(hf_pmgaft.__file__).parent / "metrics" / "robust_accuracy"
    return evaluate.load(str(folder), cache_dir=str(tmp_path_factory.mktemp("metric")))


def test_worst_case_over_attacks_and_clean(metric):
    result = metric.compute(
        predictions=[0, 1, 2, 0],
        adversarial_predictions=[[0, 0], [1, 2], [2, 2], [1, 1]],
        references=[0, 1, 2, 1],
    )
    assert result["clean_accuracy"] == 0.75
    assert result["robust_accuracy"] == 0.5
    assert result["num_samples"] == 4
    low, high = result["robust_interval_95"]
    assert low < 0.5 < high


def test_an_image_without_an_attack_is_refused(metric):
    with pytest.raises(ValueError, match="no prediction under attack"):
        metric.compute(predictions=[0], adversarial_predictions=[[]], references=[0])
