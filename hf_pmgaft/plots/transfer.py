"""The picture of a transfer matrix: who makes images, who judges them, and how many are right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.transfer_report import CLEAN, TransferReport
from .figures import HEAT, new_figure, save_png, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LIGHT = 55  # percent above which a cell's colour is so light that its number is black
LONGEST = 28  # characters of a name
FRAME = "#3aa6a6"


def transfer_map(report: TransferReport, file: str | os.PathLike) -> Figure:
    """Accuracies in %, mean over sets: a panel per threat, a row per source and a column per model that judges.

    The first row is without an attack. Frames mark the diagonal, which is the white-box attack.

    Args:
        report (`TransferReport`): Of any models and threats.
        file (`str`): Where the picture goes, as PNG.

    Example:
        >>> import copy
        >>> from hf_pmgaft import ZeroShotDataset
        >>> from hf_pmgaft.evaluation import transfer_matrix
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> models = {"one": (model, processor), "copy": (copy.deepcopy(model), processor)}
        >>> figure = transfer_map(transfer_matrix(models, [food], ["fgsm,eps=8/255"], progress=False), "map.png")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['no attack', 'made on one', 'made on copy']
    """
    names, threats = report.names, report.threats
    edge = 1.1 * len(names)
    figure, (panels,) = new_figure(1, len(threats), (len(threats) * (edge + 2.2) + 0.8, edge + 2))
    for axis, threat in zip(panels, threats, strict=True):
        values = [[report.clean_accuracy(target) for target in names]]
        values += [[report.accuracy(source, target, threat) for target in names] for source in names]
        picture = _draw_cells(axis, 100 * np.array(values))
        axis.set_xticks(range(len(names)), [shorten(name, LONGEST) for name in names], rotation=20, ha="right")
        axis.set_yticks(range(len(names) + 1), [CLEAN, *(f"made on {shorten(name, LONGEST)}" for name in names)])
        axis.set(title=threat, xlabel="judged by")
    figure.colorbar(picture, ax=list(panels), label="accuracy in %")
    save_png(figure, file)
    return figure


def _draw_cells(axis: Axes, values: np.ndarray) -> AxesImage:
    """Cells with their numbers, the white-box ones framed."""
    from matplotlib.patches import Rectangle

    picture = axis.imshow(values, cmap=HEAT, vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > LIGHT else "white"
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    for number in range(values.shape[1]):
        corner = (number - 0.5, number + 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FRAME, linewidth=2.5))
    return picture
