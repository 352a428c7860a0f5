"""Batches of an optimizer step, as they are split over processes and over time."""

from support.borders import Refused, check, outcomes

from hf_pmgaft.distributed import split_batch

# Total, per device, how often, processes.
CASES = {
    "nothing": ((None, None, None, 1), (8, 1)),
    "nothing on two": ((None, None, None, 2), (8, 1)),
    "as Trainer has it": ((None, 4, 3, 2), (4, 3)),
    "a total": ((256, None, None, 1), (256, 1)),
    "a total on eight": ((256, None, None, 8), (32, 1)),
    "a total in parts": ((256, 64, None, 1), (64, 4)),
    "a total in parts on two": ((256, 64, None, 2), (64, 2)),
    "a total of so many parts": ((256, None, 4, 2), (32, 4)),
    "a total with all of its parts": ((256, 16, 2, 8), (16, 2)),
    "a total with other parts": (
        (256, 16, 4, 8),
        Refused("Pass total_train_batch_size=512, or per_device_train_batch_size=16"),
    ),
    "a total on three": ((256, None, None, 3), Refused("Pass total_train_batch_size=255 or 258.")),
    "parts that do not fit": ((256, 48, None, 1), Refused("=240 or 288, or per_device_train_batch_size=32 alone.")),
    "parts larger than it": ((4, 8, None, 1), Refused("=8, or per_device_train_batch_size=4 alone.")),
    "more processes than images": ((4, None, None, 8), Refused("Pass total_train_batch_size=8.")),
    "an odd number of times": ((256, None, 3, 1), Refused("Pass total_train_batch_size=255 or 258")),
}


@outcomes(CASES)
def test_batches(given, outcome):
    *sizes, processes = given
    check(lambda: split_batch(*sizes, processes=processes), outcome)
