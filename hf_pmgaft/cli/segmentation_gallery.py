"""What models take the pixels of some images for, clean and attacked, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import nn

from ..attacks import frozen, sample_seeds
from ..attacks.spec import AttackSpec
from ..zero_shot.readout_spec import ReadoutSpec

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.segmentation_sets import SegmentationDataset

Maps = dict[str, list[torch.Tensor]]


def look_at_pixels(
    model: nn.Module,
    processor: Any,
    data: SegmentationDataset,
    rows: Sequence[int],
    attack: AttackSpec,
    readout: ReadoutSpec,
    seed: int,
) -> Maps:
    """The classes `[H,W]` that one model gives to the pixels of some rows: `"clean"`, and `"attacked"` against it.

    The attacked images are those of an evaluation by the same seed.
    """
    device = PartialState().device
    segmenter = readout.segmenter(model.to(device), processor, data)

    maps: Maps = {"clean": [], "attacked": []}
    with frozen(model):
        for row in rows:
            example = data[row]
            images, masks = example["images"][None].to(device), example["labels"][None].to(device)
            seeds = sample_seeds(seed, 0, torch.tensor([row], device=device))
            adversarial = attack.run_dense(segmenter, images, masks, seeds, any_iterate=True)
            with torch.no_grad():
                maps["clean"] += segmenter.predict(segmenter(images)).cpu()
                maps["attacked"] += segmenter.predict(segmenter(adversarial)).cpu()
    return maps


def draw_pixels(
    looks: Mapping[str, Maps], data: SegmentationDataset, rows: Sequence[int], attack: AttackSpec, file: str
) -> None:
    """Draws what models see in some rows, and says where the picture is."""
    from ..plots import segmentation_gallery

    examples = [data[row] for row in rows]
    segmentation_gallery(
        [example["images"] for example in examples],
        [example["labels"] for example in examples],
        {f"{name}, {key}": of_key for name, maps in looks.items() for key, of_key in maps.items()},
        data.class_names,
        file,
        title=f"What pixels are taken for, clean and under {attack.name}",
    )
    print(f"The picture is in {file}.")
