"""How heads read their support sets; what they make of them is tested with the encoders that need them."""

import pytest
import torch

from hf_pmgaft import NearestClassMean, ZeroShotDataset
from hf_pmgaft.fingerprints import digest


class Counting(ZeroShotDataset):
    """Notes which rows this process reads."""

    def __getitem__(self, row: int) -> dict:
        self.__dict__.setdefault("reads", []).append(row)
        return super().__getitem__(row)


@pytest.fixture
def support(images, processor) -> Counting:
    return Counting(images, processor, name="support")


def test_the_digest_is_that_of_the_images_and_labels_batch_by_batch(support):
    expected = []
    for start in range(0, len(support), 5):
        rows = range(len(support))[start : start + 5]
        expected.append(torch.stack([support[row]["images"] for row in rows]).numpy().tobytes())
        expected.append(torch.tensor([support[row]["labels"] for row in rows]).numpy().tobytes())
    described = NearestClassMean(support, batch_size=5).describe([support])["support"]["support"]
    assert described == {"num_samples": len(support), "images": digest(expected)}


def test_a_support_set_is_read_once_for_its_digest_and_its_features(support, model, processor):
    head = NearestClassMean(support)
    for _ in range(2):
        head.describe([support])
        head.fit(model, processor, support)
    assert support.reads == list(range(len(support)))


def test_a_support_set_is_read_by_workers(support, model, processor):
    expected = NearestClassMean(support).fit(model, processor, support)
    support.reads.clear()
    fitted = NearestClassMean(support, num_workers=1).fit(model, processor, support)
    assert torch.equal(fitted.class_embeds, expected.class_embeds) and support.reads == []


def test_a_number_of_workers_that_is_none_is_refused(support):
    with pytest.raises(ValueError, match="num_workers=-1"):
        NearestClassMean(support, num_workers=-1)
