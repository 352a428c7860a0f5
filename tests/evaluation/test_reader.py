"""The reader: what it keeps, and lots of rows that are read ahead by worker processes."""

import pytest
import torch

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.evaluation import reader as reading
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.fingerprints import digest_of_image


class Grey:
    """Images of one grey each, whose labels are a class for each pixel; those of odd rows lie between 8-bit levels."""

    name = "grey"

    def __init__(self):
        self.reads = []

    def __getitem__(self, row: int) -> dict:
        self.reads.append(row)
        level = row + 0.3 * (row % 2)
        return {"images": torch.full((3, 4, 4), level / 255), "labels": torch.full((4, 4), row), "sample_id": row}


@pytest.fixture
def food(images, processor) -> ZeroShotDataset:
    return ZeroShotDataset(images, processor, name="food")


# ---- One process ----


def test_images_are_stacked_with_labels_of_any_shape():
    images, labels = Reader(Grey()).stack([0, 5])
    assert images.shape == (2, 3, 4, 4) and labels.shape == (2, 4, 4)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64


def test_images_are_read_once_while_they_take_little_room(monkeypatch):
    data = Grey()
    reader = Reader(data)
    reader.stack([0, 1, 0, 1])
    assert data.reads == [0, 1]

    monkeypatch.setattr(reading, "KEPT_BYTES", 3 * 4 * 4 * 4)  # one image of floats, or four of 8 bits
    reader = Reader(data)
    reader.stack([1, 3, 1, 3])
    assert data.reads == [0, 1, 1, 3, 3]
    reader = Reader(data)
    reader.stack([0, 2, 4, 6, 8] * 2)
    assert data.reads[5:] == [0, 2, 4, 6, 8, 8]


def test_what_is_too_large_to_be_kept_does_not_keep_others_out(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 3 * 4 * 4 * 2)  # two images of 8 bits
    data = Grey()
    Reader(data).stack([0, 1, 2, 0, 1, 2])
    assert data.reads == [0, 1, 2, 1]


def test_the_images_of_a_processor_are_kept_in_8_bits_and_come_back_to_the_bit(food):
    reader = Reader(food)
    for _ in range(2):  # read, and then kept
        (loaded,) = reader.stream([[4, 1, 9]])
        assert loaded.images.dtype == torch.uint8 and loaded.images.shape == (3, 3, 16, 16)
        floats = loaded.to("cpu").images
        assert floats.dtype == torch.float32
        assert all(torch.equal(image, food[row]["images"]) for image, row in zip(floats, [4, 1, 9], strict=True))


def test_a_lot_with_an_image_between_8_bit_levels_is_of_floats():
    reader = Reader(Grey())
    even, mixed = reader.stream([[2, 4], [2, 3]])
    assert (even.images.dtype, mixed.images.dtype) == (torch.uint8, torch.float32)
    assert mixed.images[0, 0, 0, 0] == torch.tensor(2 / 255) and mixed.images[1, 0, 0, 0] == torch.tensor(3.3 / 255)
    assert mixed.to("cpu").images is not None and mixed.labels[:, 0, 0].tolist() == [2, 3]


def test_digests_are_those_of_the_images_as_the_set_gives_them(food):
    reader = Reader(food)
    expected = [digest_of_image(food[row]["images"], food[row]["labels"]) for row in (3, 0)]
    for _ in range(2):  # read, and then kept
        (loaded,) = reader.stream([[3, 0]], with_digests=True)
        assert loaded.digests == expected
    (loaded,) = reader.stream([[3, 0]])
    assert loaded.digests is None


def test_a_lot_is_taken_when_it_is_asked_for():
    taken = []
    stream = Reader(Grey()).stream(taken.append(row) or [row] for row in range(5))
    assert taken == []
    assert next(stream).rows == [0] and taken == [0]
    assert next(stream).rows == [1] and taken == [0, 1]


@pytest.mark.parametrize("num_workers", [-1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(num_workers):
    with pytest.raises(ValueError, match=r"num_workers=.*Pass an integer from 0"):
        Reader(Grey(), num_workers=num_workers)
