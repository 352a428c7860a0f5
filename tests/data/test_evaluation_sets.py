"""Evaluation sets: images in [0,1] at the size at which they are attacked, and the rows that are evaluated."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.sets import replace
from support.tiny import SIZE, encoded, make_model, make_processor

from hf_pmgaft.data import (
    ZeroShotDataset,
)
from hf_pmgaft.evaluation import evaluate_robustness


def test_evaluation_sets_are_in_0_1_at_the_model_s_size_or_their_own(eight, processor):
    data, native = ZeroShotDataset(eight, processor), ZeroShotDataset(eight, processor, native_size=True)
    assert data[0]["images"].shape == (3, SIZE, SIZE) and native[0]["images"].shape == (3, 20, 20)
    original = torch.from_numpy(np.array(eight[3]["image"])).permute(2, 0, 1) / 255
    torch.testing.assert_close(native[3]["images"], original)
    report = evaluate_robustness(
        make_model(), processor, [native], [{"attack": "pgd", "eps": "1/255", "num_steps": 1}], progress=False
    )
    assert report.sets[0].num_samples == 8


def test_resize_sets_the_shortest_edge_before_the_crop(eight, processor):
    data = ZeroShotDataset(eight, processor, resize=32)
    options = {"size": {"shortest_edge": 32}, "do_normalize": False, "return_tensors": "pt"}
    wanted = processor.image_processor(eight[2]["image"], **options)["pixel_values"][0]
    torch.testing.assert_close(data[2]["images"], wanted.clamp(0, 1))
    assert data[2]["images"].shape == (3, SIZE, SIZE)
    assert not torch.equal(data[2]["images"], ZeroShotDataset(eight, processor)[2]["images"])


def test_resizes_that_do_not_lead_to_the_model_s_size_are_refused(eight, processor):
    with pytest.raises(ValueError, match="less than the processor's crop of 16"):
        ZeroShotDataset(eight, processor, resize=15)
    with pytest.raises(ValueError, match="own size or are resized, not both"):
        ZeroShotDataset(eight, processor, resize=32, native_size=True)
    whole = make_processor()
    whole.image_processor.do_center_crop = False
    with pytest.raises(ValueError, match="does not crop"):
        ZeroShotDataset(eight, whole, resize=32)


def test_no_image_is_read_for_the_size_that_the_processor_gives_all_of_them(eight, processor):
    broken = replace(eight, 0, eight.features, image={"bytes": b"no image", "path": None})
    data = ZeroShotDataset(broken, processor, name="broken")
    assert data.shape == (3, SIZE, SIZE) == data[1]["images"].shape
    native = ZeroShotDataset(broken, processor, name="broken", native_size=True)
    with pytest.raises(ValueError, match="row 0 of 'broken'"):
        print(native.shape)


def test_images_of_several_sizes_are_refused(eight, processor):
    wide = replace(eight, 1, eight.features, image={"bytes": encoded(Image.new("RGB", (30, 20))), "path": None})
    with pytest.raises(ValueError, match="row 1 of 'wide' is .*3, 20, 30.*several sizes.*native_size"):
        ZeroShotDataset(wide, processor, name="wide", native_size=True)[1]


def test_sample_ids_are_the_rows_that_are_evaluated(eight, processor):
    data = ZeroShotDataset(eight, processor, sample_ids=(6, 1))
    assert data.sample_ids == [6, 1] and len(data) == 8 and ZeroShotDataset(eight, processor).sample_ids is None
    attack = {"attack": "pgd", "eps": "1/255", "num_steps": 1}
    report = evaluate_robustness(make_model(), processor, [data], [attack], progress=False)
    assert sorted(report.sets[0].verdicts["sample_id"]) == [1, 6]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([0, 8], "ids \\[8\\] for 'set'.*0 to 7"), ([-1], "ids \\[-1\\]"), ([2, 1, 2], "ids \\[2\\].*once"), ([], "ids")],
)
def test_sample_ids_outside_the_set_or_twice_are_refused(eight, processor, ids, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotDataset(eight, processor, sample_ids=ids)
