"""Galleries: captions and their numbers, targets, and what cannot be ranked."""

import datasets
import numpy as np
import pytest
from PIL import Image
from support.emoji import make_data
from support.tiny import SIZE, make_images, make_processor

from hf_pmgaft import RetrievalDataset
from hf_pmgaft.evaluation.gallery import Gallery, filled_up


def captioned(captions: list) -> datasets.Dataset:
    return make_images(len(captions)).remove_columns("label").add_column("caption", captions)


def make_gallery(captions: list, **options) -> Gallery:
    data = RetrievalDataset(captioned(captions), make_processor(), name="own", **options)
    return Gallery(data, range(len(captions)), seed=0)


SHARED = [["a disc", f"a red disc {i}"] for i in range(12)]


def test_a_caption_that_several_images_have_is_one_caption_of_all_of_them():
    gallery = make_gallery(SHARED)
    assert gallery.captions[:3] == ["a disc", "a red disc 0", "a red disc 1"] and gallery.num_candidates == 13
    assert gallery.own[5] == [0, 6]
    assert gallery.images_of_captions()[:3] == [list(range(12)), [0], [1]]


def test_labels_are_an_images_own_captions_filled_up_by_the_first():
    gallery = make_gallery([*SHARED[:-1], ["a green disc"]])
    assert gallery[3]["labels"] == [0, 4] and gallery[11]["labels"] == [12, 12]
    assert gallery[3]["images"].shape == gallery.data.shape and gallery[3]["sample_id"] == 3
    assert filled_up([[4], [1, 2, 3]], 3) == [[4, 4, 4], [1, 2, 3]]


def test_drawn_targets_are_not_an_images_own_and_follow_the_seed(emoji):
    data = make_data(emoji[1], target="drawn")
    gallery = Gallery(data, range(24), 0)
    assert all(target not in gallery.own[row] for row, target in gallery.targets.items())
    assert len(set(gallery.targets.values())) > 15 and gallery.targets == Gallery(data, range(24), 0).targets
    assert Gallery(data, range(24), 1).targets != gallery.targets
    assert gallery[3]["labels"] == gallery.targets[3]


def few_left_out(processor, left_out: int) -> RetrievalDataset:
    """12 images and 12 captions; image i has all of them but caption i and those that follow, `left_out` in all."""
    captions = [f"caption {i}" for i in range(12)]
    own = [[captions[k] for k in range(12) if (k - i) % 12 >= left_out] for i in range(12)]
    pictures = [Image.fromarray(np.full((SIZE, SIZE, 3), 20 * i, np.uint8)) for i in range(12)]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
    table = datasets.Dataset.from_dict({"image": pictures, "caption": own}, features=features)
    return RetrievalDataset(table, processor, name="own", target="drawn")


def test_a_drawn_target_is_any_caption_but_the_image_s_own(emoji):
    data = few_left_out(emoji[1], 1)
    for seed in range(20):
        gallery = Gallery(data, range(12), seed)
        drawn = {row: gallery.captions[target] for row, target in gallery.targets.items()}
        assert drawn == {row: f"caption {row}" for row in range(12)}  # there is no other choice
    data = few_left_out(emoji[1], 3)
    drawn = {row: set() for row in range(12)}
    for seed in range(40):
        gallery = Gallery(data, range(12), seed)
        for row, target in gallery.targets.items():
            drawn[row].add(gallery.captions[target])
    assert drawn == {row: {f"caption {(row + k) % 12}" for k in range(3)} for row in range(12)}


def test_images_that_have_the_chosen_caption_are_no_queries():
    gallery = make_gallery(SHARED, target="a red disc 4")
    assert gallery.rows == [row for row in range(12) if row != 4] and set(gallery.targets.values()) == {5}
    assert gallery.describe()["num_images"] == 12 and gallery.describe()["target"] == "a red disc 4"


def test_the_protocol_names_the_threats_that_there_are():
    away, pull = (make_gallery(SHARED, target=target).describe() for target in (None, "drawn"))
    assert list(away["threats"]) == ["I2T", "T2I"] and "target" not in away
    assert list(pull["threats"]) == ["target"] and pull["target"] == "drawn"
    assert away["num_pairs"] == 24 and away["recall_at"] == [1, 5, 10]


@pytest.mark.parametrize(
    ("captions", "target", "message"),
    [
        ([f"a red disc {i}" for i in range(10)], None, "10 images and 10 different captions.*more than 10"),
        (["a red disc"] * 12, None, "12 images and 1 different captions"),
        (SHARED, "a green disc", "target 'a green disc', which is no caption.*13 captions, such as 'a disc'"),
        (SHARED, "a disc", "Every image of 'own' has the target"),
        ([[f"a red disc {i}" for i in range(11)]] * 12, "drawn", "row 0 of 'own' has every caption"),
    ],
)
def test_what_cannot_be_ranked_is_refused(captions, target, message):
    with pytest.raises(ValueError, match=message):
        make_gallery(captions, target=target)
