"""The module for the `evaluate` library."""

import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from support.launch import environment
from support.tiny import fit_model, make_images

import hf_pmgaft
from hf_pmgaft import ZeroShotDataset, evaluate_robustness
from hf_pmgaft.evaluation.outcomes import worst_case
from hf_pmgaft.metrics.robust_accuracy import robust_accuracy
from hf_pmgaft.metrics.robust_accuracy.robust_accuracy import RobustAccuracy


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


def test_it_sums_up_as_the_package_does():
    model, processor = fit_model()
    data = ZeroShotDataset(make_images(20, seed=9), processor, None, "a photo of the {}", name="own")
    attacks = [{"attack": "pgd", "eps": "20/255", "loss": loss} for loss in ("ce", "margin")]
    result = evaluate_robustness(model, processor, [data], attacks, progress=False).sets[0]
    clean, *attacked = (result.verdicts[key] for key in ("clean", *result.attacks))
    figures = RobustAccuracy.figures(clean, worst_case(*attacked))
    assert figures["clean_accuracy"] == result.clean_accuracy
    assert 0 < figures["robust_accuracy"] == result.robust_accuracy < 1
    assert figures["robust_interval_95"] == list(result.robust_interval)


def test_it_imports_the_package_and_no_module_of_the_package_imports_its_library():
    assert robust_accuracy.worst_case is worst_case
    code = """
import pkgutil, importlib, sys
import hf_pmgaft
for module in pkgutil.walk_packages(hf_pmgaft.__path__, "hf_pmgaft."):
    if not module.name.startswith("hf_pmgaft.metrics"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "gradio":  # which the page needs, and tests may lack
                raise
print("evaluate" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
