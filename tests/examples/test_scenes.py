"""The embedded scenes: exact masks, styles that stay apart, a set by its name, and better than chance."""

import numpy as np
import pytest
import scene_classes
import scenes
import torch
from datasets import load_dataset
from support.paths import EMOJI
from transformers import CLIPModel, CLIPProcessor

from hf_pmgaft import SegmentationDataset
from hf_pmgaft.cli import evaluate
from hf_pmgaft.data import IGNORED
from hf_pmgaft.suites import load_set, load_suite, load_training_set
from hf_pmgaft.zero_shot.segmenter import Segmenter

FINETUNE = {"noto", "fxemoji", "emojione", "fluent-emoji", "fluent-emoji-flat", "streamline-emojis"}
STYLES = {"train": FINETUNE, "validation": {"noto-v1"}, "test": {"twemoji"}}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return load_dataset(str(EMOJI / "data"), "scenes", cache_dir=str(tmp_path_factory.mktemp("datasets")))


@pytest.fixture(scope="module")
def clip():
    return CLIPModel.from_pretrained(EMOJI / "model").eval(), CLIPProcessor.from_pretrained(EMOJI / "model")


def squares(count: int = 5) -> list[scenes.Drawing]:
    """Drawings that are opaque squares of one grey each, with a see-through rim."""
    drawings = []
    for label in range(1, count + 1):
        frame = np.zeros((48, 48, 4), np.uint8)
        frame[6:42, 6:42] = [40 * label] * 3 + [255]
        frame[4:6, 4:44] = [5 * label] * 3 + [60]
        drawings.append(scenes.Drawing(label, "squares", frame))
    return drawings


# ---- How they are drawn ----


@pytest.mark.parametrize("ground", scenes.GROUNDS)
def test_what_the_mask_says_is_what_is_seen(ground):
    for number in range(20):
        scene = scenes.draw_scene(np.random.default_rng(number), squares(), 60, 60, ground)
        labels = [drawing.label for drawing in scene.drawings]
        assert set(np.unique(scene.mask)) <= {0, *labels} and len(set(labels)) == len(labels) > 0
        for label in labels:
            inside = scene.image[scene.mask == label]
            assert np.median(np.abs(inside.astype(int) - 40 * label)) <= 1


def test_no_drawing_is_hidden_and_the_last_one_is_whole():
    for number in range(50):
        scene = scenes.draw_scene(np.random.default_rng(number), squares(), 60, 60, "plain")
        area = (scene.mask == scene.drawings[-1].label).sum()
        edge = round(area**0.5)
        assert abs(edge * edge - area) <= edge  # a square
        least = scenes.VISIBLE * (scenes.EDGES[0] * 36 / 48 - 2) ** 2
        assert all((scene.mask == drawing.label).sum() >= least for drawing in scene.drawings)


def test_scenes_follow_from_the_seed_and_their_number():
    first, again = (scenes.scenes_of(squares(), "validation") for _ in range(2))
    assert len(first) == scenes.NUM_SCENES["validation"]
    assert all(np.array_equal(a.image, b.image) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0].image, scenes.scenes_of(squares(), "test")[0][0].image)
    assert {scene.mask.shape for scene, _ in first} == set(scenes.SIZES)


def test_a_resized_drawing_stays_premultiplied():
    sprite = scenes.resized(squares()[4].frame, 31)
    assert sprite.shape == (31, 31, 4) and (sprite[..., :3] <= sprite[..., 3:] + 1).all()


# ---- Which classes ----


def test_the_class_is_removed_without_which_the_others_are_told_best():
    """Class 0 takes the patch of class 1 for itself, and its own look like class 2."""
    of_0, of_1 = [0.5, 0.1, 0.9, 0.0], [0.9, 0.3, 0.1, 0.0]
    cosines = torch.tensor([of_0, of_0, of_1, [0.1, 0.2, 0.8, 0.0], [0.1, 0.2, 0.0, 0.9]])
    assert scene_classes.remove(cosines, torch.tensor([0, 0, 1, 2, 3]), num_classes=3) == [1, 2, 3]


# ---- What is shipped ----


@pytest.mark.parametrize("split", STYLES)
def test_a_split_has_its_styles_and_sizes_and_masks_of_what_was_pasted(splits, split):
    rows = splits[split]
    assert len(rows) == scenes.NUM_SCENES[split]
    assert {style for styles in rows["styles"] for style in styles} <= STYLES[split]
    assert rows.features["classes"].feature.names == [scenes.BACKGROUND, *scenes.CLASSES]
    for row in rows:
        mask = np.array(row["mask"])
        assert row["mask"].mode == "P" and mask.shape in scenes.SIZES
        assert row["image"].size == row["mask"].size and row["ground"] in scenes.GROUNDS
        assert set(np.unique(mask)) - {0} == set(row["classes"]) and 1 <= len(row["classes"]) <= 3


def test_every_class_is_in_every_split_and_no_animal_among_them(splits):
    animals = load_dataset(str(EMOJI / "data"), "finetune", split="train").features["label"].names
    assert not set(scenes.CLASSES) & set(animals)
    for rows in splits.values():
        assert {label for labels in rows["classes"] for label in labels} == set(range(1, 21))


def test_scenes_are_a_set_by_name(clip):
    (of_suite, _) = load_suite("embedded", clip[1])
    (of_command,) = evaluate.load_sets(evaluate.parse(["--eval_sets", "scenes"]), clip[1])[0]
    for data in (load_set("scenes", clip[1]), of_suite, of_command):
        assert isinstance(data, SegmentationDataset) and (data.name, len(data)) == ("scenes", 240)
        assert [data.size_of(row) for row in range(4)] == list(scenes.SIZES)
        assert data.prompt_templates == ["an emoji of {}"] and data.class_names == list(scenes.CLASSES)
        assert data[0]["labels"].min() == IGNORED and data[0]["images"].shape[1:] == data[0]["labels"].shape
    of_suite.check_masks()


def test_other_splits_are_read_by_name_and_by_their_place(clip):
    by_name = load_set("scenes_validation", clip[1])
    text = f"{EMOJI / 'data'}:scenes@validation"
    by_place = load_set(text, clip[1], class_names="scenes", reduce_zero_label=True)
    assert len(by_name) == len(by_place) == 120 and by_name.synonyms == by_place.synonyms
    assert by_name[7]["labels"].equal(by_place[7]["labels"])
    with pytest.raises(ValueError, match="a split for embedded:scenes.*by its place, .*data:scenes"):
        load_set("scenes@validation", clip[1])


def test_images_of_training_scenes_are_trained_on_where_no_labels_are_needed(clip):
    examples = load_training_set("scenes", clip[1], needs_labels=False)
    assert len(examples) == 240 and examples[0]["pixel_values"].shape == (3, 40, 40) and "labels" not in examples[0]
    with pytest.raises(ValueError, match="usual label columns"):
        load_training_set("scenes", clip[1])


def test_the_model_segments_scenes_better_than_chance(clip):
    """ClearCLIP names over a third of the pixels right; chance is one in twenty, the most frequent class 7 %."""
    data = load_set("scenes", clip[1])
    segmenter = Segmenter.from_model(*clip, data, readout="clearclip")
    right = labelled = 0
    for row in range(0, 240, 5):
        example = data[row]
        predicted = segmenter.predict(segmenter(example["images"].unsqueeze(0)))[0]
        is_labelled = example["labels"] != IGNORED
        right += (predicted == example["labels"])[is_labelled].sum().item()
        labelled += is_labelled.sum().item()
    assert right > 0.3 * labelled
