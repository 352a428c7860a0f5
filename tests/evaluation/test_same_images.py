"""A set at hand is taken for a report's only where its class names, rows and pixels are the report's."""

import copy

import pytest
from support.masked import NAMES, make_masked
from support.sets import make_data
from support.tiny import make_images

from hf_pmgaft import RobustnessReport, SegmentationDataset, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.evaluation.same_images import check_same_images
from hf_pmgaft.fingerprints import digest_of_list


@pytest.fixture(scope="module")
def report(fitted, data) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], ["fgsm,eps=4/255"], progress=False, max_samples=12, probes=False)


def rows_of(report) -> list[int]:
    return report.sets[0].verdicts["sample_id"]


def edited(report, **values) -> RobustnessReport:
    other = copy.deepcopy(report)
    other.protocol["sets"]["own"].update(values)
    return other


def test_the_same_set_read_again_is_the_report_s(report, processor):
    check_same_images(report, make_data(processor), rows_of(report))


def test_other_pixels_of_the_same_names_and_rows_are_not(report, processor):
    others = ZeroShotDataset(make_images(40, seed=1), processor, None, "a photo of the {}", name="own")
    with pytest.raises(ValueError, match="has other images than the report's"):
        check_same_images(report, others, rows_of(report))
    without_digests = copy.deepcopy(report)
    del without_digests.protocol["sets"]["own"]["images"]
    check_same_images(without_digests, others, rows_of(report))


def test_other_sets_names_and_rows_are_refused_before_an_image_is_read(report, data, processor, monkeypatch):
    monkeypatch.setattr(ZeroShotDataset, "__getitem__", lambda *_: pytest.fail("an image was read"))
    rows = rows_of(report)
    other = ZeroShotDataset(make_images(40), processor, None, "a photo of the {}", name="other")
    with pytest.raises(ValueError, match="has no set 'other'"):
        check_same_images(report, other, rows)
    renamed = ZeroShotDataset(make_images(40), processor, ["a", "b", "c", "d"], "a photo of the {}", name="own")
    with pytest.raises(ValueError, match="has other class names"):
        check_same_images(report, renamed, rows)
    with pytest.raises(ValueError, match="the rows of 'own' are not those"):
        check_same_images(report, data, rows[1:])
    for outside in ([40], [-1], [True], ["0"], [0.5]):
        with pytest.raises(ValueError, match="the rows of 'own' are not those"):
            check_same_images(edited(report, sample_ids=digest_of_list(outside)), data, outside)
    with pytest.raises(ValueError, match="12 images of 'own' are too many"):
        check_same_images(report, data, rows, most=11)


def test_sets_with_masks_or_captions_are_refused(report, data, processor):
    with pytest.raises(ValueError, match="are not classified"):
        check_same_images(edited(report, retrieval={}), data, rows_of(report))
    masked = SegmentationDataset(make_masked(2), processor, NAMES, ["a {}"], name="own")
    with pytest.raises(ValueError, match="are not classified"):
        check_same_images(report, masked, [0, 1])
