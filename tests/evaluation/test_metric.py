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


def test_the_package_sums_its_verdicts_up_by_the_same_class(monkeypatch):
    from support.tiny import fit_model, make_images

    from hf_pmgaft import ZeroShotDataset, evaluate_robustness
    from hf_pmgaft.metrics.robust_accuracy.robust_accuracy import RobustAccuracy

    model, processor = fit_model()
    data = ZeroShotDataset(make_images(20, seed=9), processor, None, "a photo of the {}", name="own")
    attacks = [{"attack": "pgd", "eps": "20/255", "loss": loss} for loss in ("ce", "margin")]
    result = evaluate_robustness(model, processor, [data], attacks, progress=False).sets[0]
    clean, *attacked = (result.verdicts[key] for key in ("clean", *result.attacks))
    figures = RobustAccuracy.figures(clean, RobustAccuracy.worst_case(*attacked))
    assert figures["clean_accuracy"] == result.clean_accuracy
    assert 0 < figures["robust_accuracy"] == result.robust_accuracy < 1
    assert figures["robust_interval_95"] == list(result.robust_interval)

    monkeypatch.setattr("hf_pmgaft.evaluation.evaluate.worst_case", lambda *verdicts: [False] * 20)
    assert evaluate_robustness(model, processor, [data], attacks, progress=False).mean_robust_accuracy == 0
