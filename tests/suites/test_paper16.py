"""The suite `paper16`: each set by a small local set of the same columns, label features and traps."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.tiny import SIZE, make_pair_for

from hf_pmgaft.data import sources
from hf_pmgaft.data.builders import Part
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.prompts import check_class_names, prompt_name
from hf_pmgaft.suites import FOLDER, draw_sample_ids, load_suite, read_suite
from hf_pmgaft.suites.fields import size_range

SUITE = read_suite("paper16")
IMAGE_SIZES = {"cifar10": (32, 32), "cifar100": (32, 32), "stl10": (96, 96)}
# What stands beside image and label on the Hub; a family is a class label too, and not the one wanted.
OTHER_COLUMNS = {
    "cifar100": {"coarse_label": datasets.ClassLabel(names=["aquatic mammals", "fish"])},
    "fgvc_aircraft": {"family": datasets.ClassLabel(names=["Boeing 707", "A300"])},
    "caltech101": {"__key__": datasets.Value("int64")},
    "caltech256": {"text": datasets.Value("int64")},
}
LABELS = {"caltech101": [0, 4, 5, 101], "caltech256": [1, 2, 257], "pcam": [False, True]}
NUMBERED = ["caltech101", "caltech256", "pcam"]
# A label as the set holds it, and the prompt it must lead to.
PROMPTS = {
    "tiny_imagenet": (170, "This is a photo of a goose"),
    "cifar10": (1, "This is a photo of a automobile"),
    "cifar100": (26, "This is a photo of a crab"),
    "stl10": (7, "This is a photo of a monkey"),
    "sun397": (8, "This is a photo of a apartment building outdoor"),
    "food101": (16, "A photo of cheesecake, a type of food."),
    "oxford_pets": (36, "A photo of a yorkshire terrier, a type of pet."),
    "flowers102": (1, "A photo of a hard leaved pocket orchid, a type of flower."),
    "dtd": (30, "A surface with a polka dotted texture."),
    "eurosat": (2, "A centered satellite photo of brushland or shrubland."),
    "fgvc_aircraft": (0, "A photo of a boeing 707 320, a type of aircraft."),
    "imagenet": (517, "This is a photo of a construction crane"),
    "caltech101": (5, "A photo of a barrel."),
    "caltech256": (257, "A photo of a clutter."),
    "stanford_cars": (1, "A photo of a acura rl sedan."),
    "pcam": (True, "this is a photo of lymph node tumor tissue"),
}


def stand_in(name: str, label_names: list[str] | None = None) -> datasets.Dataset:
    """A few rows with the columns and label feature that the set has on the Hub, the one of `PROMPTS` last."""
    entry = SUITE[name]
    names = label_names or entry.get("labels", entry["class_names"])
    labels = LABELS.get(name, [0, len(names) - 1]) + [PROMPTS[name][0]]
    feature = datasets.Value("bool" if name == "pcam" else "int64")
    if name not in NUMBERED:
        feature = datasets.ClassLabel(names=names)
    rng = np.random.default_rng(0)
    height, width = IMAGE_SIZES.get(name, (20, 30))
    pixels = rng.integers(0, 256, (len(labels), height, width, 3), dtype=np.uint8)
    columns = {entry["image_column"]: list(map(Image.fromarray, pixels)), entry["label_column"]: labels}
    features = {entry["image_column"]: datasets.Image(), entry["label_column"]: feature}
    for column, other in OTHER_COLUMNS.get(name, {}).items():
        columns[column], features[column] = [0] * len(labels), other
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(dataset: datasets.Dataset, folder: Path, split: str) -> None:
    """A set that several splits make up is saved as such, a part of the rows in each."""
    parts = split.split("+")
    if len(parts) == 1:
        return dataset.save_to_disk(folder)
    shards = [dataset.shard(len(parts), i, contiguous=True) for i in range(len(parts))]
    datasets.DatasetDict(zip(parts, shards, strict=True)).save_to_disk(folder)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name, entry in SUITE.items():
        save(stand_in(name), folder / name, entry.get("split"))
    return folder


@pytest.fixture(scope="module")
def loaded(data_root, processor) -> dict:
    return {data.name: data for data in load_suite("paper16", processor, data_root=data_root)}


def test_the_suite_is_the_table_s_sixteen_sets(loaded):
    assert list(loaded) == list(SUITE) == list(PROMPTS)
    assert [name for name, entry in SUITE.items() if entry.get("in_domain")] == ["tiny_imagenet"]
    sizes = [10_000, 10_000, 10_000, 8_000, 108_754, 25_250, 3_669, 6_149, 1_880, 27_000, 3_333, 50_000]
    assert [entry["num_images"] for entry in SUITE.values()] == sizes + [[8_371, 8_401], 30_607, 8_041, 32_768]
    classes = [200, 10, 100, 10, 397, 101, 37, 102, 47, 10, 100, 1000, 101, 257, 196, 2]
    assert [len(data.class_names) for data in loaded.values()] == classes


@pytest.mark.parametrize("name", SUITE)
def test_every_set_gives_images_labels_and_prompts(loaded, name):
    data = loaded[name]
    size = IMAGE_SIZES.get(name, (SIZE, SIZE))
    rows = [data[i] for i in range(len(data))]
    assert all(row["images"].shape == (3, *size) for row in rows)
    assert all(0 <= row["images"].min() and row["images"].max() <= 1 for row in rows)
    assert {type(row["labels"]) for row in rows} == {int}
    assert rows[0]["labels"] == 0 and max(row["labels"] for row in rows) == len(data.class_names) - 1
    (template,) = data.prompt_templates
    assert template.format(prompt_name(data.class_names[rows[-1]["labels"]])) == PROMPTS[name][1]


def test_every_set_is_evaluated(loaded):
    pytest.importorskip("pyautoattack")
    attacks = [{"attack": "fgsm", "eps": "1/255"}, {"attack": "autoattack", "version": "fast", "eps": "1/255"}]
    model, processor = make_pair_for(name for data in loaded.values() for name in data.class_names)
    report = evaluate_robustness(model, processor, loaded, attacks, progress=False)
    assert [result.name for result in report.sets] == list(SUITE)
    for result, data in zip(report.sets, loaded.values(), strict=True):
        assert result.num_samples == len(data) and result.num_classes == len(data.class_names)
        # Two classes have no targeted loss: PCAM's images meet the margin instead.
        assert ("APGD-T linf 1/255" in result.attacks) == (result.name != "pcam")
    assert report.protocol["sets"]["cifar10"]["attacked_at"] == [32, 32]
    assert report.protocol["sets"]["dtd"]["resize"] == 18  # 256 before a crop of 224


@pytest.mark.parametrize("name", [name for name in SUITE if name not in NUMBERED])
def test_names_in_another_order_are_refused(tmp_path, processor, name):
    names = SUITE[name].get("labels", SUITE[name]["class_names"])
    save(stand_in(name, [*names[:3], names[4], names[3], *names[5:]]), tmp_path / name, SUITE[name]["split"])
    with pytest.raises(ValueError, match=f"Label 3 of '{name}'"):
        load_suite("paper16", processor, names=[name], data_root=tmp_path)


@pytest.mark.parametrize("change", [lambda names: names[:-1], lambda names: [*names, "rust"]], ids=["fewer", "more"])
def test_other_numbers_of_names_are_refused(tmp_path, processor, change):
    stand_in("dtd", change(SUITE["dtd"]["class_names"])).select([0]).save_to_disk(tmp_path / "dtd")
    with pytest.raises(ValueError, match="Label 4[67] of 'dtd'"):
        load_suite("paper16", processor, names=["dtd"], data_root=tmp_path)


@pytest.mark.parametrize(("name", "label"), [("caltech256", 0), ("caltech256", 258), ("caltech101", 102)])
def test_numbers_outside_the_classes_are_refused(tmp_path, processor, name, label):
    data = stand_in(name)
    column = SUITE[name]["label_column"]
    data = data.remove_columns(column).add_column(column, [label] * len(data))
    save(data, tmp_path / name, SUITE[name]["split"])
    with pytest.raises(ValueError, match=f"labels \\[{label}\\]"):
        load_suite("paper16", processor, names=[name], data_root=tmp_path)


def test_images_of_dropped_classes_are_left_out(loaded):
    labels = [loaded["caltech101"][i]["labels"] for i in range(len(loaded["caltech101"]))]
    assert labels == [0, 4, 100, 4]  # of 0, 4 (the background), 5, 101 and 5
    assert "background google" not in loaded["caltech101"].class_names


def test_class_names_are_distinct_and_overridden():
    for entry in SUITE.values():
        check_class_names(entry["class_names"])
    assert [name for name in SUITE["fgvc_aircraft"]["class_names"] if name[0] == "7"] == []
    cars = SUITE["stanford_cars"]
    with_year = [name for name in cars["class_names"] if name in cars["labels"]]
    assert len(with_year) == 14 and len({name[:-5] for name in with_year}) == 7
    assert all(label.startswith(name) for name, label in zip(cars["class_names"], cars["labels"], strict=True))
    assert SUITE["cifar100"]["labels"][26] == "cra"
    wnids = SUITE["tiny_imagenet"]["labels"]
    assert wnids == sorted(wnids) and all(wnid[0] == "n" and len(wnid) == 9 for wnid in wnids)
    assert not any("/" in name for name in SUITE["sun397"]["class_names"])


def test_stored_sample_ids_are_what_the_function_draws():
    stored = json.loads((FOLDER / "sample_ids.json").read_text())
    assert list(stored) == list(SUITE)
    for name, entry in SUITE.items():
        assert len(set(stored[name])) == len(stored[name]) == 1000
        assert 0 <= min(stored[name]) and max(stored[name]) < size_range(entry)[0]
    for name in ("dtd", "fgvc_aircraft", "caltech101"):
        assert stored[name] == draw_sample_ids(name, size_range(SUITE[name])[0])


def test_a_limit_takes_the_first_of_the_stored_order(tmp_path, processor):
    entry = SUITE["dtd"]
    feature = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=entry["class_names"])})
    image = {
        "path": None,
        "bytes": stand_in("dtd").cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"],
    }
    labels = [i % 47 for i in range(entry["num_images"])]
    full = datasets.Dataset.from_dict({"image": [image] * len(labels), "label": labels}, features=feature)
    full.save_to_disk(tmp_path / "dtd")
    stored = json.loads((FOLDER / "sample_ids.json").read_text())["dtd"]
    for limit in (3, 1000):
        (data,) = load_suite("paper16", processor, names=["dtd"], data_root=tmp_path, limit=limit)
        assert data.sample_ids == sorted(stored[:limit]) and len(data) == entry["num_images"]
    attack = {"attack": "pgd", "eps": "1/255", "num_steps": 1}
    (data,) = load_suite("paper16", processor, names=["dtd"], data_root=tmp_path, limit=3)
    model, knowing = make_pair_for(data.class_names)
    report = evaluate_robustness(model, knowing, [data], [attack], progress=False)
    assert report.sets[0].verdicts["sample_id"] == sorted(stored[:3])
    (data,) = load_suite("paper16", processor, names=["dtd"], data_root=tmp_path)
    assert data.sample_ids is None


def test_a_limit_needs_the_whole_set(data_root, processor):
    with pytest.raises(ValueError, match="'dtd' has 3 images, but 1880 are stated"):
        load_suite("paper16", processor, names=["dtd"], data_root=data_root, limit=2)


def test_the_hub_is_asked_for_the_stated_split_and_its_size_checked(monkeypatch, processor):
    asked = []
    whole = {"fgvc_aircraft": 3_333}

    def load_part(part):
        asked.append(part)
        data = stand_in("fgvc_aircraft")
        return data.select([0] * whole["fgvc_aircraft"])

    monkeypatch.setattr(sources, "load_part", load_part)
    (data,) = load_suite("paper16", processor, names=["fgvc_aircraft"])
    assert asked == [Part("HuggingFaceM4/FGVC-Aircraft", split="test", revision="refs/convert/parquet")]
    assert len(data) == 3_333
    whole["fgvc_aircraft"] = 3_334
    with pytest.raises(ValueError, match="3334 images, but 3333 are stated"):
        load_suite("paper16", processor, names=["fgvc_aircraft"])


@pytest.mark.parametrize("limit", [0, 1001])
def test_limits_beyond_the_stored_order_are_refused(data_root, processor, limit):
    with pytest.raises(ValueError, match=f"limit={limit}"):
        load_suite("paper16", processor, data_root=data_root, limit=limit)


def test_unknown_suites_and_sets_are_named_with_those_there_are(data_root, processor):
    with pytest.raises(ValueError, match="no suite 'paper17'.*paper16"):
        read_suite("paper17")
    with pytest.raises(ValueError, match="no sets \\['mnist'\\].*cifar10"):
        load_suite("paper16", processor, names=["mnist"], data_root=data_root)
    with pytest.raises(ValueError, match="has no folder 'dtd'"):
        load_suite("paper16", processor, names=["dtd"], data_root=data_root / "dtd")
