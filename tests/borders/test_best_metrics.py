"""What a user names as `metric_for_best_model`, and what follows it."""

import pytest
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_processor
from support.trainers import make_trainer
from transformers import EarlyStoppingCallback

from hf_pmgaft import RetrievalDataset, ZeroShotDataset
from hf_pmgaft.evaluation.metric_names import metric_names

STEPS = {"eval_strategy": "steps", "eval_steps": 1}
STOP = EarlyStoppingCallback(2)
OWN = {"compute_metrics": lambda prediction: {"error": 0.0}}

CASES = {
    "nothing": ({}, None),
    "the mean": ({"metric_for_best_model": "eval_mean_robust_accuracy"}, "eval_mean_robust_accuracy"),
    "without its prefix": ({"metric_for_best_model": "mean_robust_accuracy"}, "mean_robust_accuracy"),
    "of a set": ({"metric_for_best_model": "own_clean_accuracy"}, "own_clean_accuracy"),
    "of a set that is not there": (
        {"metric_for_best_model": "food_robust_accuracy"},
        Refused("eval_own_robust_accuracy"),
    ),
    "misspelt": ({"metric_for_best_model": "robust_acc"}, Refused("Pass one of: eval_mean_robust_accuracy")),
    "a loss": ({"metric_for_best_model": "loss"}, Refused("which no evaluation gives")),
    "how long it took": ({"metric_for_best_model": "eval_runtime"}, Refused("which no evaluation gives")),
    "of the test": ({"metric_for_best_model": "test_mean_robust_accuracy"}, Refused("which no evaluation gives")),
    "one's own": ({"metric_for_best_model": "own_error", "greater_is_better": False, **OWN}, "own_error"),
    "one's own of another set": ({"metric_for_best_model": "food_error", **OWN}, Refused("which no evaluation gives")),
    "early stopping by it": (
        {"metric_for_best_model": "mean_robust_accuracy", "callbacks": [STOP], **STEPS},
        "mean_robust_accuracy",
    ),
    "early stopping by nothing": ({"callbacks": [STOP], **STEPS}, Refused("there is nothing for it to follow")),
    "early stopping as a class": ({"callbacks": [EarlyStoppingCallback]}, Refused("eval_strategy='no'")),
    "early stopping without evaluation": (
        {"metric_for_best_model": "mean_robust_accuracy", "callbacks": [STOP]},
        Refused("eval_strategy='steps' or 'epoch'"),
    ),
}


@outcomes(CASES)
def test_metrics_of_the_best_model(given, outcome, tmp_path):
    def metric():
        sets = {"own": make_images(4)}
        return make_trainer(tmp_path, eval_dataset=sets, **given).args.metric_for_best_model

    check(metric, outcome)


@pytest.mark.parametrize("target", [None, "drawn"])
def test_names_are_known_before_the_evaluation_that_gives_them(tmp_path, target):
    images = make_images(24)
    captions = [f"a {CLASS_NAMES[label]} {row}" for row, label in enumerate(images["label"])]
    captioned = images.add_column("caption", captions)
    sets = {
        "own": ZeroShotDataset(images, make_processor(), CLASS_NAMES, "a {}", name="own"),
        "pairs": RetrievalDataset(captioned, make_processor(), name="pairs", target=target),
    }
    trainer = make_trainer(tmp_path, eval_dataset=sets, eval_num_steps=1, eval_loss="ce")

    metrics = trainer.evaluate()

    beside = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    assert set(metric_names(list(sets.values()))) == set(metrics) - beside
