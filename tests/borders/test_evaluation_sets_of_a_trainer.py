"""What a user passes as `eval_dataset`, and what its metrics are then called."""

from pathlib import Path

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_processor
from support.trainers import make_trainer
from torch.utils.data import Dataset

from hf_pmgaft import RetrievalDataset, ZeroShotDataset

PLAIN = make_images(4)


def ready(name="set"):
    return ZeroShotDataset(PLAIN, make_processor(), CLASS_NAMES, "a photo of the {}", name=name)


def captioned(name="set"):
    captions = [f"a {CLASS_NAMES[label]}" for label in PLAIN["label"]]
    return RetrievalDataset(PLAIN.add_column("caption", captions), make_processor(), name=name)


class Rows(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return PLAIN[index]


CASES = {
    "nothing": (lambda: None, None),
    "an empty dict": (lambda: {}, None),
    "an empty list": (lambda: [], None),
    "a plain set": (lambda: PLAIN, ["set"]),
    "a ready set": (lambda: ready("food"), ["food"]),
    "a dict of a plain set": (lambda: {"mine": PLAIN}, ["mine"]),
    "a dict of a ready set of no name": (lambda: {"mine": ready()}, ["mine"]),
    "a dict of a ready set of another name": (lambda: {"mine": ready("food")}, ["mine"]),
    "a dict of two ready sets of no name": (lambda: {"mine": ready(), "other": ready()}, ["mine", "other"]),
    "a dict of an image-caption set": (lambda: {"mine": captioned()}, ["mine"]),
    "a dict of both": (lambda: {"mine": ready(), "captions": captioned()}, ["mine", "captions"]),
    "splits": (lambda: datasets.DatasetDict({"dev": PLAIN, "test": PLAIN}), ["dev", "test"]),
    "a list of ready sets": (lambda: [ready("food"), ready("pets")], ["food", "pets"]),
    "a list of ready sets of one name": (lambda: [ready(), ready()], Refused("Pass a dict of sets by name")),
    "a list of plain sets": (lambda: [PLAIN, PLAIN], Refused("which has no name for its metrics", TypeError)),
    "a name": (lambda: "cifar10", Refused("names none of the trainer's sets (there are none)")),
    "a dict of a name": (lambda: {"cifar10": "uoft-cs/cifar10"}, Refused("`load_images(name)`", TypeError)),
    "a dict of a path": (lambda: {"cifar10": Path("cifar10")}, Refused("which holds no rows", TypeError)),
    "a dict of splits": (
        lambda: {"a": datasets.DatasetDict({"test": PLAIN})},
        Refused("such as a['test']", TypeError),
    ),
    "a dict of nothing": (lambda: {"mine": None}, Refused("'mine' as a NoneType", TypeError)),
    "a number": (lambda: 3, Refused("which holds no rows", TypeError)),
    "a number for a key": (lambda: {1: PLAIN}, Refused("under the key 1", TypeError)),
    "a stream": (lambda: {"mine": PLAIN.to_iterable_dataset()}, Refused("'mine' is a stream")),
    "a set of torch without columns": (lambda: {"mine": Rows()}, Refused("Pass `class_names`")),
}


@outcomes(CASES)
def test_names_of_evaluation_sets(given, outcome, tmp_path):
    def names():
        sets = make_trainer(tmp_path, eval_dataset=given()).eval_dataset
        return None if sets is None else [data.name for data in sets.values()]

    check(names, outcome)


def test_metrics_go_by_the_key_and_the_user_s_set_keeps_its_name(tmp_path):
    mine = ready("food")
    trainer = make_trainer(tmp_path, eval_dataset={"mine": mine})

    metrics = trainer.evaluate()

    assert "eval_mine_robust_accuracy" in metrics and "eval_food_robust_accuracy" not in metrics
    assert mine.name == "food"


def test_evaluate_takes_the_name_of_one_of_the_trainer_s_sets(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset={"a": ready(), "b": ready()})

    metrics = trainer.evaluate("b")

    assert "eval_b_robust_accuracy" in metrics and "eval_a_robust_accuracy" not in metrics
    with pytest.raises(ValueError, match=r"names none of the trainer's sets \(a, b\)"):
        trainer.evaluate("c")
