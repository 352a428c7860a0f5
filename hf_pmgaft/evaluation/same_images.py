"""Whether a set that is at hand is the one whose images a report is of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..data.evaluation_sets import EvaluationImages, RetrievalDataset
from ..data.segmentation_sets import SegmentationDataset
from ..fingerprints import digest_of_list
from .loaded import Example
from .report import RobustnessReport

MOST_IMAGES = 10_000  # that are read to see that they are a report's


def check_same_images(
    report: RobustnessReport, data: EvaluationImages, rows: Sequence[int], most: int = MOST_IMAGES
) -> None:
    """Raises `ValueError` unless the images in some rows of a set are those that a report judged in its set of that
    name.

    They are, if class names, rows, and digests of the pixels at the size of the attack are the report's. All rows are
    read for it, the first time. A report without digests is believed by the rest.

    Args:
        report (`RobustnessReport`): Whose protocol has the digests.
        data (`ZeroShotDataset`): The set at hand. Sets with captions or masks are refused.
        rows (`list[int]`): All rows that were judged, in order.
        most (`int`): How many images are read at most.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> check_same_images(report, food, report.sets[0].verdicts["sample_id"])
        >>> others = ZeroShotDataset(dataset.select(range(15, -1, -1)), processor, name="food")
        >>> check_same_images(report, others, range(16))
        Traceback (most recent call last):
        ValueError: the set 'food' here has other images than the report's, or has them at another size
    """
    name = data.name
    entry = report.protocol.get("sets", {}).get(name)
    if entry is None:
        raise ValueError(f"the report's protocol has no set {name!r}")
    if isinstance(data, (RetrievalDataset, SegmentationDataset)) or "retrieval" in entry or "segmentation" in entry:
        raise ValueError(f"the images of {name!r} are not classified")
    if entry.get("class_names") != digest_of_list(data.class_names):
        raise ValueError(f"the set {name!r} here has other class names than the report's")

    # Rows, before any is read
    if digest_of_list(rows) != entry.get("sample_ids") or not all(_is_row(row, data) for row in rows):
        raise ValueError(f"the rows of {name!r} are not those of the report's protocol")
    if len(rows) > most:
        raise ValueError(f"{len(rows):,} images of {name!r} are too many to see whether they are the report's")

    if "images" in entry and entry["images"] != _digest(data, tuple(rows)):
        raise ValueError(f"the set {name!r} here has other images than the report's, or has them at another size")


def _is_row(row: Any, data: EvaluationImages) -> bool:
    return isinstance(row, int) and not isinstance(row, bool) and 0 <= row < len(data)


@lru_cache(maxsize=64)
def _digest(data: EvaluationImages, rows: tuple[int, ...]) -> str:
    """The digest of images that the protocol of an evaluation of these rows has."""
    return digest_of_list([Example.read(data, row).digest() for row in rows])
