"""The names of an evaluation's metrics, known before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.evaluation_sets import EvaluationImages, RetrievalDataset
from ..data.segmentation_sets import SegmentationDataset
from .figure import MEAN_IOU, PIXEL_ACCURACY, Figure
from .gallery import RECALL_AT
from .report import RobustnessReport, SetResult


def metric_names(sets: Sequence[EvaluationImages], prefix: str = "eval") -> list[str]:
    """The keys of [`RobustnessReport.metrics`] for the report on these sets, without an evaluation.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> metric_names([ZeroShotDataset(dataset, processor, name="shapes")])[:2]
        ['eval_shapes_clean_accuracy', 'eval_shapes_robust_accuracy']
    """
    rows = []
    for data in sets:
        for figure in _figures(data):
            name = data.name if figure.is_accuracy else f"{data.name} {figure.title}"
            rows.append(SetResult(name, 0, 0, 0.0, 0.0, {}, figure=figure))
    return list(RobustnessReport({}, rows).metrics(prefix))


def _figures(data: EvaluationImages) -> list[Figure]:
    if isinstance(data, SegmentationDataset):
        return [Figure(kind) for kind in (MEAN_IOU, PIXEL_ACCURACY)]
    if not isinstance(data, RetrievalDataset):
        return [Figure()]
    if data.target is not None:
        return [Figure.target_kept_out(k) for k in RECALL_AT]
    return [Figure.recall(direction, k) for direction in ("I2T", "T2I") for k in RECALL_AT]
