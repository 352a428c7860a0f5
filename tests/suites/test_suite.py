"""Suites of one's own: what a few lines of YAML make, and what is refused."""

import shutil
from pathlib import Path

import pytest
from support.tiny import CLASS_NAMES, SIZE, make_images

from hf_pmgaft.suites import draw_sample_ids, load_suite, read_suite, shipped_suites
from hf_pmgaft.suites.known import find_known_set

OWN = """
shapes:
  path: {folder}/shapes
  split: test
  class_names: shapes.txt
  prompt_template: a photo of the {{}}
"""


@pytest.fixture
def own(tmp_path) -> Path:
    make_images(8).save_to_disk(tmp_path / "shapes")
    (tmp_path / "shapes.txt").write_text("\n".join(CLASS_NAMES))
    (tmp_path / "own.yaml").write_text(OWN.format(folder=tmp_path))
    return tmp_path / "own.yaml"


def test_a_few_lines_of_yaml_make_a_suite(own, processor):
    (data,) = load_suite(own, processor)
    assert (data.name, data.class_names, len(data)) == ("shapes", CLASS_NAMES, 8)
    assert data.prompt_templates == ["a photo of the {}"] and data[0]["images"].shape == (3, SIZE, SIZE)
    (some,) = load_suite(str(own), processor, limit=5)
    assert some.sample_ids == sorted(draw_sample_ids("shapes", 8)[:5])
    (own.parent / "sample_ids.json").write_text('{"shapes": [7, 0, 3, 1]}')
    assert load_suite(own, processor, limit=2)[0].sample_ids == [0, 7]
    with pytest.raises(ValueError, match="limit=5, but 4 sample ids of 'shapes'"):
        load_suite(own, processor, limit=5)


def test_dropped_classes_and_their_images_are_left_out_of_a_class_label_too(own, processor):
    own.write_text(own.read_text() + "  drop_classes: [green disc]\n")
    (data,) = load_suite(own, processor)
    assert data.class_names == ["red disc", "blue square", "yellow square"]
    assert [data[i]["labels"] for i in range(len(data))] == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("classes: [a, b]", "unknown fields \\['classes'\\]. Known are: path"),
        ("class_names: none.txt", "none.txt, which is not there"),
        ("class_names: []", "has no class_names"),
        ("class_names: [no, yes]", "no text: \\[False, True\\].*quotes"),
        ("class_names: [a, A]", "share the name 'A'"),
        ("labels: [a, b]", "2 labels but 4 class names"),
        ("drop_classes: [cat]", "drops \\['cat'\\]"),
        ("num_images: 9", "8 images, but 9 are stated"),
        ("resize: 224/256", "or a share of the crop such as 256/224"),
        ("resize: 256/0", "or a share of the crop such as 256/224"),
        ("resize: 8", "less than the processor's crop of 16"),
        ("first_label: 1", "labels \\[0\\], outside 1 to 4"),
    ],
)
def test_wrong_entries_are_refused(own, processor, line, message):
    key = line.partition(":")[0]
    kept = [other for other in own.read_text().splitlines() if not other.strip().startswith(key)]
    own.write_text("\n".join([*kept, f"  {line}"]))
    with pytest.raises(ValueError, match=message):
        load_suite(own, processor)


@pytest.mark.parametrize("text", ["- shapes", "shapes: data/shapes", ""])
def test_a_suite_maps_sets_to_fields(own, text):
    own.write_text(text)
    with pytest.raises(ValueError, match="no mapping of sets"):
        read_suite(own)


def test_a_set_without_a_path_is_refused(own):
    own.write_text("shapes:\n  class_names: shapes.txt\n")
    with pytest.raises(ValueError, match="has no path. State them: Hub id"):
        read_suite(own)


def test_a_local_set_of_another_size_is_evaluated_whole_with_a_warning(own, processor, caplog):
    own.write_text(own.read_text() + "  num_images: 9\n")
    (data,) = load_suite(own, processor, data_root=own.parent)
    assert data.sample_ids is None and "8 images in place of the stated 9" in caplog.text
    shutil.rmtree(own.parent / "shapes")
    with pytest.raises(ValueError, match="no folder 'shapes'"):
        load_suite(own, processor, data_root=own.parent)


def test_the_shipped_suites_are_listed_and_read():
    assert shipped_suites() == ["embedded", "fare13", "natural_shift", "paper16", "segmentation"]
    for name in shipped_suites():
        assert all(entry["path"] and entry["class_names"] for entry in read_suite(name).values())


def test_a_set_that_is_the_same_as_another_suites_has_its_fields_but_for_those_stated(tmp_path):
    (tmp_path / "own.yaml").write_text("textures:\n  same_as: paper16:dtd\n  prompt_template: a {} thing\n")
    entry, known = read_suite(tmp_path / "own.yaml")["textures"], read_suite("paper16")["dtd"]
    assert entry == {**known, "same_as": "paper16:dtd", "prompt_template": "a {} thing"}


def test_a_set_that_is_the_same_as_a_shipped_one_is_read_as_it(tmp_path, processor):
    name = next(iter(read_suite("embedded")))
    (tmp_path / "own.yaml").write_text(f"own:\n  same_as: embedded:{name}\n")
    (own,), (shipped,) = load_suite(tmp_path / "own.yaml", processor), load_suite("embedded", processor, names=[name])
    assert own.class_names == shipped.class_names and len(own) == len(shipped)
    assert own[0]["images"].equal(shipped[0]["images"])


@pytest.mark.parametrize("other", ["paper16:nothing", "dtd", "nowhere:dtd", "fare13"])
def test_a_set_that_is_the_same_as_nothing_is_refused(tmp_path, other):
    (tmp_path / "own.yaml").write_text(f"textures:\n  same_as: {other}\n")
    with pytest.raises(ValueError, match=f"is to be the same as '{other}', which is no set"):
        read_suite(tmp_path / "own.yaml")


def test_the_sets_of_robust_clip_are_attacked_at_the_size_of_the_crop():
    sets = read_suite("fare13")
    assert list(sets) == [
        "cifar10",
        "cifar100",
        "stl10",
        "stanford_cars",
        "caltech101",
        "oxford_pets",
        "flowers102",
        "dtd",
        "eurosat",
        "fgvc_aircraft",
        "pcam",
        "imagenet_r",
        "imagenet_sketch",
    ]
    assert all(entry["resize"] == "224/224" and not entry.get("native_size") for entry in sets.values())
    assert sets["imagenet_r"]["path"] == "clip-benchmark/wds_imagenet-r" and len(sets["pcam"]["class_names"]) == 2
    assert find_known_set("imagenet_r").text == "natural_shift:imagenet_r"  # and not fare13's
    assert find_known_set("fare13:dtd").entry["resize"] == "224/224"
    assert sets["cifar10"]["sample_ids"] == read_suite("paper16")["cifar10"]["sample_ids"]
