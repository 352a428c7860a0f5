"""Labels as sets have them: the number of the class that is meant, or one refusal before anything is computed."""

import datasets
import numpy as np
import torch
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_processor

from hf_pmgaft.data import ZeroShotDataset, label_index, training_examples

PICTURE = make_images(1)[0]["image"]
NUMBERS = {name: number for number, name in enumerate(CLASS_NAMES)}
OUTSIDE = Refused("which is not among the 4 classes (0 to 3: red disc, green disc, blue square, ...)")

LABELS = {
    "an integer": (2, 2),
    "a NumPy integer": (np.int64(2), 2),
    "an unsigned one of 8 bits": (np.uint8(3), 3),
    "a tensor of one": (torch.tensor(2), 2),
    "a whole float": (2.0, 2),
    "a NumPy whole float": (np.float32(1), 1),
    "true": (True, 1),
    "false": (np.bool_(False), 0),
    "a name": ("blue square", 2),
    "a NumPy text": (np.str_("blue square"), 2),
    "half a class": (0.5, OUTSIDE),
    "NaN": (float("nan"), OUTSIDE),
    "infinity": (float("inf"), OUTSIDE),
    "nothing": (None, OUTSIDE),
    "a mark of unlabelled rows": (-1, Refused("the label -1, which is not among the 4 classes")),
    "counted from 1": (4, Refused("the label 4, which is not among the 4 classes (0 to 3")),
    "a number as text": ("2", OUTSIDE),
    "a name in capitals": ("Blue Square", OUTSIDE),
    "an empty text": ("", OUTSIDE),
    "one-hot": ([0, 0, 1, 0], OUTSIDE),
    "a long one-hot": ([0.0] * 1000, OUTSIDE),
    "a one-hot array": (np.eye(4)[2], OUTSIDE),
    "a one-hot tensor": (torch.eye(4)[2], OUTSIDE),
    "a dict": ({"id": 2}, OUTSIDE),
}


@outcomes(LABELS)
def test_labels_of_classes_with_names(given, outcome):
    def index():
        found = label_index(given, NUMBERS, 7)
        assert type(found) is int
        rows = [{"image": PICTURE, "label": 0}, {"image": PICTURE, "label": given}]
        assert training_examples(rows, make_processor(), CLASS_NAMES)[1]["labels"] == found
        return found

    check(index, outcome)


@outcomes({name: case for name, case in LABELS.items() if isinstance(case[1], Refused)})
def test_a_label_that_is_refused_is_refused_when_the_set_is_made(given, outcome):
    rows = [{"image": b"never read", "label": 0}, {"image": b"never read", "label": given}]
    check(lambda: training_examples(rows, make_processor(), CLASS_NAMES), Refused("Row 1 has the label"))
    check(lambda: ZeroShotDataset(rows, make_processor(), CLASS_NAMES, name="own"), Refused("Row 1 of 'own' has"))


def labelled(feature, labels) -> datasets.Dataset:
    """Images with a label column of some type."""
    images = datasets.Dataset.from_dict({"image": [PICTURE] * len(labels)})
    return images.add_column("label", labels).cast_column("label", feature)


AB = datasets.ClassLabel(names=["ant", "bee"])
ABC = datasets.ClassLabel(names=["ant", "bee", "cat"])
INTEGER, TEXT = datasets.Value("int64"), datasets.Value("string")
SETS = {
    "a ClassLabel": ((labelled(AB, [1, 0]), None), (["ant", "bee"], [1, 0])),
    "a ClassLabel with a class of no row": ((labelled(ABC, [1, 0]), None), (["ant", "bee", "cat"], [1, 0])),
    "a ClassLabel under names of one's own": ((labelled(AB, [1]), ["an ant", "a bee"]), (["an ant", "a bee"], [1])),
    "its own names": ((labelled(AB, [1]), ["ant", "bee"]), (["ant", "bee"], [1])),
    "its own names, and more": ((labelled(AB, [1]), ["ant", "bee", "cat"]), (["ant", "bee", "cat"], [1])),
    "a name of its own for one class": ((labelled(AB, [1]), ["ant", "honey bee"]), (["ant", "honey bee"], [1])),
    "its names in another order": ((labelled(AB, [1]), ["bee", "ant"]), Refused("another order than the labels of")),
    "its names with one put between": (
        (labelled(AB, [1]), ["ant", "cat", "bee"]),
        Refused("label 1 is 'bee' there and 'cat' in yours"),
    ),
    "a part of its names": ((labelled(ABC, [0, 1]), ["ant", "bee"]), (["ant", "bee"], [0, 1])),
    "a part of its names that has moved": ((labelled(ABC, [0]), ["bee", "cat"]), Refused("label 0 is 'ant' there")),
    "too few names": ((labelled(ABC, [2]), ["ant", "bee"]), Refused("Row 0 has the label 2")),
    "texts": ((labelled(TEXT, ["bee", "ant"]), None), (["ant", "bee"], [1, 0])),
    "texts under names in another order": ((labelled(TEXT, ["bee", "ant"]), ["bee", "ant"]), (["bee", "ant"], [0, 1])),
    "texts without one of them": (
        (labelled(TEXT, ["bee", "cat"]), ["ant", "bee"]),
        Refused("Row 1 has the label 'cat'"),
    ),
    "an empty text": (
        (labelled(TEXT, ["bee", "", "ant"]), None),
        Refused("Row 1 has the label '', which is not among the 2 classes"),
    ),
    "a missing text": ((labelled(TEXT, ["bee", None, "ant"]), None), Refused("Row 1 has the label None")),
    "integers without names": ((labelled(INTEGER, [0, 1]), None), Refused("names no classes. Pass `class_names`")),
    "integers with names": ((labelled(INTEGER, [0, 1]), ["ant", "bee"]), (["ant", "bee"], [0, 1])),
    "a missing integer": ((labelled(INTEGER, [0, None]), ["ant", "bee"]), Refused("Row 1 has the label None")),
    "booleans": ((labelled(datasets.Value("bool"), [True, False]), ["no", "yes"]), (["no", "yes"], [1, 0])),
    "floats": ((labelled(datasets.Value("float32"), [1.0, 0.0]), ["no", "yes"]), (["no", "yes"], [1, 0])),
    "lists": (
        (labelled(datasets.List(INTEGER), [[0, 1], [1, 0]]), ["ant", "bee"]),
        Refused("Row 0 has the label [0, 1], which is not among the 2 classes"),
    ),
}


@outcomes(SETS)
def test_label_columns_of_sets(given, outcome):
    dataset, class_names = given

    def labels():
        examples = training_examples(dataset, make_processor(), class_names)
        return examples.class_names, [example["labels"] for example in examples]

    check(labels, outcome)
