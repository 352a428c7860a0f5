"""Rows that a processor has made, as a user passes them: a batch of what was meant, or one clear refusal."""

import numpy as np
import torch
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_processor

from hf_pmgaft.data import Collator, training_examples

PIXELS = torch.linspace(-1.5, 1.5, 3 * 16 * 16).view(3, 16, 16)
RIGHT = ([1], True)


def row(**values) -> dict:
    return {"pixel_values": PIXELS, "labels": 1, **values}


ROWS = {
    "a tensor": (row(), RIGHT),
    "an array": (row(pixel_values=PIXELS.numpy()), RIGHT),
    "nested lists": (row(pixel_values=PIXELS.tolist()), RIGHT),
    "doubles": (row(pixel_values=PIXELS.numpy().astype(np.float64)), RIGHT),
    "a label of NumPy": (row(labels=np.int64(1)), RIGHT),
    "a label in a tensor": (row(labels=torch.tensor(1)), RIGHT),
    "a label in an array": (row(labels=np.array(1)), RIGHT),
    "true": (row(labels=True), RIGHT),
    "a whole float": (row(labels=1.0), RIGHT),
    "a name": (row(labels="green disc"), RIGHT),
    "half a class": (row(labels=0.5), Refused("the label 0.5, which is not among the 4 classes")),
    "nothing": (row(labels=None), Refused("the label None, which is not among the 4 classes")),
    "one-hot": (row(labels=[0, 1, 0, 0]), Refused("the label [0, 1, 0, 0], which is not among the 4 classes")),
    "a class beyond the last": (row(labels=4), Refused("the label 4, which is not among the 4 classes")),
    "an unlabelled row": (row(labels=-100), Refused("the label -100, which is not among the 4 classes")),
    "no label": ({"pixel_values": PIXELS}, Refused("labels")),
    "images of 8 bits": (row(pixel_values=torch.zeros(3, 16, 16, dtype=torch.uint8)), Refused("not floating point")),
    "channels last": (row(pixel_values=PIXELS.permute(1, 2, 0)), Refused("not floating point [B,3,H,W]")),
    "a batch of one": (row(pixel_values=PIXELS[None]), Refused("of shape [1, 1, 3, 16, 16]")),
    "grey": (row(pixel_values=PIXELS[:1]), Refused("of shape [1, 1, 16, 16]")),
    "not normalised": (
        row(pixel_values=PIXELS.abs() * 80),
        Refused("or not normalised. Pass images, or"),
    ),
    "NaN": (row(pixel_values=PIXELS * float("nan")), Refused("hold NaN or infinite pixels")),
    "no pixels": (row(pixel_values=None), Refused("of shape [1], not floating point [B,3,H,W]")),
}


@outcomes(ROWS)
def test_rows_that_a_processor_has_made(given, outcome):
    def batch():
        data = training_examples([given], make_processor(), CLASS_NAMES)
        made = Collator(make_processor(), 4)([data[0]])
        return made["labels"].tolist(), torch.allclose(made["pixel_values"][0].float(), PIXELS)

    check(batch, outcome)
