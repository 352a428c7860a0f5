"""Sets with masks by their names: folders, tables, sets of suites, and what a command line says of them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.masked import COLOURS, NAMES, draw_scene, make_masked
from support.paths import EMOJI
from support.tiny import make_model, make_processor

from hf_pmgaft import SegmentationDataset
from hf_pmgaft.cli import evaluate
from hf_pmgaft.data import IGNORED, ZeroShotDataset
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.prompts import check_readable, check_synonyms
from hf_pmgaft.suites import load_set, load_suite, read_suite

SUITE = read_suite("segmentation")
SYNONYMS = ["background", "red disc, red circle", ["green disc"], "blue square", "yellow square"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_folder(folder: Path, count: int = 4) -> None:
    for row in range(count):
        for part, picture, ending in zip(("images", "masks"), draw_scene(row % 4), ("jpg", "png"), strict=True):
            (folder / part).mkdir(parents=True, exist_ok=True)
            picture.save(folder / part / f"{row}.{ending}")


def evaluated(arguments: str, processor):
    """The sets of a command line."""
    return evaluate.load_sets(evaluate.parse(arguments.split()), processor)[0]


# ---- By what a user types ----


def test_names_beside_are_not_taken_for_those_of_one_of_several_configurations(processor):
    with pytest.raises(ValueError, match="no class_names for 'scenes'"):
        load_set(f"{EMOJI / 'data'}:scenes", processor)


def test_a_folder_of_images_and_masks_is_a_set_with_the_names_beside(here, processor):
    write_folder(here / "streets")
    (here / "streets/classes.json").write_text(json.dumps(SYNONYMS))
    data = load_set("streets", processor, background_threshold=0.4)
    assert isinstance(data, SegmentationDataset) and len(data) == 4 and data.name == "streets"
    assert data.synonyms[1] == ["red disc", "red circle"] and data.synonyms[0] == []
    (here / "streets/classes.txt").write_text("\n".join(NAMES))
    assert load_set("streets", processor).class_names == NAMES


def test_a_table_of_images_and_masks_is_a_set_too(here, processor):
    make_masked(4).to_parquet(here / "streets.parquet")
    make_masked(4).save_to_disk(here / "saved")
    for text in ("streets.parquet", "saved"):
        data = load_set(text, processor, class_names=NAMES, short_edge=10)
        assert isinstance(data, SegmentationDataset) and data.size_of(0) == (10, 12)
    some = load_set("streets.parquet", processor, class_names=NAMES, limit=2)
    assert len(some.sample_ids) == 2 and some[some.sample_ids[0]]["labels"].shape == (20, 24)


def test_labels_of_whole_images_come_before_masks_unless_these_are_named(here, processor):
    features = datasets.ClassLabel(names=NAMES[1:])
    rows = make_masked(4).add_column("label", [0, 1, 2, 3]).cast_column("label", features)
    rows.save_to_disk(here / "both")
    assert isinstance(load_set("both", processor), ZeroShotDataset)
    assert isinstance(load_set("both", processor, class_names=NAMES, mask_column="mask"), SegmentationDataset)


def test_options_of_masks_are_refused_for_labels(here, processor):
    images = make_masked(4).remove_columns("mask").add_column("label", [0, 1, 2, 3])
    images.save_to_disk(here / "labelled")
    with pytest.raises(ValueError, match="You passed short_edge for 'labelled', which has labels and no masks"):
        load_set("labelled", processor, class_names=NAMES, short_edge=10)


def test_a_command_line_says_what_masks_hold(here, processor):
    rows = make_masked(4).rename_column("mask", "gtruth")
    rows.save_to_disk(here / "streets")
    (here / "names.txt").write_text("red disc\ngreen disc\nblue square\nyellow square")
    names = "--eval_sets streets --eval_class_names names.txt"
    (data,) = evaluated(f"{names} --mask_column gtruth --reduce_zero_label --short_edge 30", processor)
    assert data.size_of(1) == (30, 36) and set(np.unique(data[1]["labels"])) == {IGNORED, 1}
    (here / "names.txt").write_text("\n".join(NAMES))
    (data,) = evaluated(f"{names} --mask_column streets=gtruth --background_threshold 0.3", processor)
    assert data.background_threshold == 0.3 and data.synonyms[0] == []
    with pytest.raises(ValueError, match="no mask column 'masks'.*For streets that is --mask_column"):
        evaluated(f"{names} --mask_column masks", processor)
    with pytest.raises(ValueError, match="You passed --short_edge with --suite"):
        evaluated("--suite segmentation --short_edge 30", processor)


# ---- The suite ----


@pytest.mark.parametrize("name", SUITE)
def test_class_names_are_as_many_as_values_and_each_stands_in_one_class(name):
    entry = SUITE[name]
    synonyms = check_synonyms(entry["class_names"], "background_threshold" in entry)
    check_readable([each for names in synonyms for each in names])
    assert len(entry.get("mask_values", synonyms)) == len(synonyms)


def test_numbers_of_classes_are_those_of_the_sets():
    counts = {name: len(entry["class_names"]) for name, entry in SUITE.items()}
    assert counts == {
        "voc20": 20,
        "voc21": 21,
        "context59": 59,
        "context60": 60,
        "coco_stuff": 171,
        "coco_object": 81,
        "ade20k": 150,
        "cityscapes": 19,
    }


def test_lists_with_and_without_background_agree():
    assert SUITE["voc21"]["class_names"][1:] == SUITE["voc20"]["class_names"]
    assert SUITE["context60"]["class_names"][1:] == SUITE["context59"]["class_names"]
    assert SUITE["coco_object"]["class_names"][1:] == SUITE["coco_stuff"]["class_names"][:80]
    assert SUITE["coco_object"]["mask_values"][1:] == SUITE["coco_stuff"]["mask_values"][:80]


@pytest.mark.parametrize("name", SUITE)
def test_every_value_of_the_original_masks_stands_for_a_class_or_none(name, here, processor):
    """A copy in a folder, with one mask that holds all values that the set's masks have."""
    last = {"voc": 20, "context": 59, "coco": 181, "ade": 150, "cityscapes": 33}
    highest = next(value for start, value in last.items() if name.startswith(start))
    gaps = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90} if name.startswith("coco") else set()
    values = [value for value in range(highest + 1) if value not in gaps]
    if name != "ade20k":  # in which 255 stands for nothing
        values.append(255)
    mask = np.resize(np.array(values, np.uint8), (20, 24))
    for part, picture in (("images", Image.new("RGB", (24, 20))), ("masks", Image.fromarray(mask))):
        (here / name / part).mkdir(parents=True)
        picture.save(here / name / part / "0.png")

    (data,) = load_suite("segmentation", processor, names=[name], data_root=here)

    labels = data[0]["labels"]
    assert set(labels.unique().tolist()) >= set(range(len(data.class_names)))
    assert min(data.size_of(0)) == SUITE[name]["short_edge"] == min(labels.shape)
    assert (IGNORED in labels) == (name != "coco_object")


@pytest.mark.parametrize(
    "name, values, message",
    [
        (
            "cityscapes",
            [0, 1, 8, 10, 18, 255],
            "hold .0, 1, 8, 10, 18, 255. and none of .19, 20, .*numbered in another",
        ),
        ("voc20", [14, 19, 255], "hold .14, 19, 255. and none of .0., so"),
        ("voc21", [14, 19, 255], "hold .14, 19, 255. and none of .0., so"),
        ("context59", [3, 58, 255], "none of .0., so that they are numbered in another way"),
        ("context60", [3, 58, 255], "none of .0., so that they are numbered in another way"),
        ("ade20k", [0, 1, 149, 255], "255.*stand for none of the 150 classes"),
        ("coco_stuff", [0, 11, 170, 255], "11.*stand for none of the 171 classes"),
    ],
)
def test_masks_that_are_numbered_as_people_convert_them_are_refused(name, values, message, here, processor):
    """By train ids, from 0 to the number of classes, with 255 for all else."""
    mask = Image.fromarray(np.resize(np.array(values, np.uint8), (4, 6)))
    for part, picture in (("images", Image.new("RGB", mask.size)), ("masks", mask)):
        (here / name / part).mkdir(parents=True)
        picture.save(here / name / part / "0.png")
    with pytest.raises(ValueError, match=message):
        load_suite("segmentation", processor, names=[name], data_root=here)


def test_known_values_stand_for_known_classes(here, processor):
    """Road and bicycle of Cityscapes, the first and the last class of ADE20K, and stuff of COCO."""
    expected = {
        "cityscapes": {7: "road", 33: "bicycle", 23: "sky", 0: None, 255: None},
        "ade20k": {1: "wall", 150: "flag", 0: None},
        "coco_stuff": {0: "person", 89: "toothbrush", 91: "banner", 181: "wood", 255: None},
        "coco_object": {0: "person", 89: "toothbrush", 91: "sky", 255: "sky"},
        "voc20": {1: "aeroplane", 20: "tv monitor", 0: None, 255: None},
        "voc21": {1: "aeroplane", 0: "sky", 255: None},
        "context59": {1: "aeroplane", 59: "wood", 0: None},
        "context60": {0: "background", 59: "wood"},
    }
    for name, classes in expected.items():
        mask = Image.fromarray(np.resize(np.array(list(classes), np.uint8), (1, len(classes))))
        for part, picture in (("images", Image.new("RGB", mask.size)), ("masks", mask)):
            (here / name / part).mkdir(parents=True)
            picture.save(here / name / part / "0.png")
        (data,) = load_suite("segmentation", processor, names=[name], data_root=here)
        labels = data[0]["labels"][0, :: SUITE[name]["short_edge"]].tolist()
        assert [None if label == IGNORED else data.class_names[label] for label in labels] == list(classes.values())


def test_threshold_and_edge_of_a_known_set_may_be_passed_and_nothing_else(processor, monkeypatch):
    monkeypatch.setattr("hf_pmgaft.suites.loading.open_entry", lambda *args: make_masked(1449, sizes=((20, 24),)))
    data = load_set("voc21", processor, background_threshold=0.5, short_edge=10)
    assert data.background_threshold == 0.5 and data.size_of(0) == (10, 12)
    assert load_set("voc21", processor).background_threshold == 0.1
    with pytest.raises(ValueError, match="ignore_index for 'segmentation:voc21', which comes with what its suite"):
        load_set("voc21", processor, ignore_index=0)


def test_a_set_without_a_copy_on_the_hub_says_how_it_is_read(processor):
    with pytest.raises(ValueError, match="no copy on the Hub is known. Save the set in a folder and pass data_root"):
        load_set("context59", processor)


def test_a_suite_of_one_s_own_may_have_masks(here, processor):
    make_masked(4).save_to_disk(here / "streets")
    own = "streets:\n  path: streets\n  mask_column: mask\n  class_names: [background, a, b, c, d]\n"
    (here / "own.yaml").write_text(own + "  background_threshold: 0.3\n")
    (data,) = load_suite("own.yaml", processor)
    assert isinstance(data, SegmentationDataset) and data.synonyms[0] == []
    for line, message in {
        "background_threshold: 2": "which is not a number between 0 and 1",
        "mask_values: 3": "which is not a list with a number",
        "ignore_index: all": "which is not a number or a list of numbers",
        "class_names: [a, b, 'c, a', d, e]": "stands for class 0 and again for class 2",
    }.items():
        lines = [each for each in own.splitlines() if not each.strip().startswith(line.partition(":")[0])]
        (here / "own.yaml").write_text("\n".join([*lines, f"  {line}"]))
        with pytest.raises(ValueError, match=message):
            load_suite("own.yaml", processor)


def test_colours_of_a_palette_in_place_of_indices_are_refused(here, processor):
    write_folder(here / "streets")
    Image.new("RGB", (24, 20), COLOURS[0]).save(here / "streets/masks/0.png")
    with pytest.raises(ValueError, match="row 0 of 'streets'.*file 0.png.*a picture in colours"):
        load_set("streets", processor, class_names=NAMES)


@pytest.mark.parametrize("value", [9, "colours"])
def test_a_mask_that_cannot_be_used_is_refused_before_anything_is_attacked(value, here, monkeypatch):
    write_folder(here / "streets")
    mask = Image.new("RGB", (24, 20)) if value == "colours" else Image.new("L", (24, 20), value)
    mask.save(here / "streets/masks/3.png")
    processor = make_processor()
    data = load_set("streets", processor, class_names=NAMES)
    monkeypatch.setattr("hf_pmgaft.evaluation.evaluate.judge_segmentation", lambda *args: pytest.fail("too late"))
    with pytest.raises(ValueError, match="row 3 of 'streets', column 'mask', file 3.png"):
        evaluate_robustness(make_model(), processor, [data], ["pgd,eps=4/255,loss=masked_ce"], progress=False)
