"""Scenes under attack through a segmenter: windows, background by threshold, and images in company."""

import pytest
import torch
from support.masked import NAMES, make_masked
from support.tiny import fit_model

from hf_pmgaft import AttackSpec, SegmentationDataset
from hf_pmgaft.zero_shot.segmenter import Segmenter

SPECS = [
    "pgd,eps=8/255,num_steps=4,loss=segpgd",
    "apgd,eps=8/255,num_steps=6,loss=cospgd",
    "sea,eps=8/255,num_steps=6",
]


@pytest.fixture(scope="module", params=["sclip", "clearclip"])
def attacked(request):
    """A segmenter of scenes that are larger than its windows, and the scenes with their masks."""
    model, processor = fit_model()
    model.requires_grad_(False)
    data = SegmentationDataset(
        make_masked(4), processor, NAMES, "a photo of the {}", name="scenes", background_threshold=0.3
    )
    segmenter = Segmenter.from_model(model, processor, data, request.param)
    rows = [data[number] for number in range(4)]
    masks = torch.stack([row["labels"] for row in rows])
    masks[:, :3] = -1
    return segmenter, torch.stack([row["images"] for row in rows]), masks


def count_right(segmenter, images, masks) -> torch.Tensor:
    with torch.no_grad():
        return (segmenter.predict(segmenter(images)) == masks).flatten(1).sum(1)


@pytest.mark.parametrize("text", SPECS)
def test_attacks_go_through_windows_and_thresholds(attacked, text):
    segmenter, images, masks = attacked
    assert min(images.shape[-2:]) > segmenter.window
    spec, seeds = AttackSpec.parse(text), torch.tensor([3, 1, 4, 1])
    adversarial = spec.run_dense(segmenter, images, masks, seeds, any_iterate=True)
    assert spec.allows(images, adversarial).all()
    before, after = count_right(segmenter, images, masks), count_right(segmenter, adversarial, masks)
    assert (after <= before).all() and after.sum() < before.sum()

    for row in range(len(images)):
        alone = spec.run_dense(
            segmenter, images[row : row + 1], masks[row : row + 1], seeds[row : row + 1], any_iterate=True
        )
        assert count_right(segmenter, alone, masks[row : row + 1]) == after[row]
