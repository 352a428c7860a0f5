"""The sets of natural shift, by small local ones in the layouts in which they are handed out, with their traps."""

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.tiny import SIZE, make_pair_for

from hf_pmgaft.cli import evaluate
from hf_pmgaft.data import ZeroShotDataset, sources
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.suites import FOLDER, load_suite, read_suite

SUITE = read_suite("natural_shift")
IMAGENET = (FOLDER / "class_names/imagenet.txt").read_text().splitlines()
SYNSETS = (FOLDER / "labels/imagenet.txt").read_text().splitlines()
V2 = {
    "imagenet_v2": "imagenetv2-matched-frequency",
    "imagenet_v2_threshold": "imagenetv2-threshold0.7",
    "imagenet_v2_top": "imagenetv2-top-images",
}
SHARDS = {"imagenet_sketch": "jpg", "imagenet_r": "jpg", "imagenet_a": "jpg", "objectnet": "png"}
OF_IMAGENET = ["imagenet", "imagenet_on_r", "imagenet_on_a", "imagenet_on_objectnet"]


def encoded(suffix: str = "jpg", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "png": "PNG"}[suffix])
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_folders(path: Path, names: list[str]) -> None:
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "0.jpeg").write_bytes(encoded())


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    """Each set as the Hub has it: three archives of ImageNet-V2, webdataset shards, and ImageNet with its synsets."""
    root = tmp_path_factory.mktemp("sets")
    for name in V2:
        for i, variant in enumerate(V2.values()):
            folders = ["0", "1", "10", "2", "999"]
            files = {f"{variant}-format-val/{folder}/{i}a7.jpeg": encoded(seed=i) for folder in folders}
            write_tar(root / name / f"{variant}.tar.gz", files)
    for name, suffix in SHARDS.items():
        last = len(SUITE[name]["class_names"]) - 1
        for row, label in enumerate([0, last, 2]):
            files = {f"s{row:07}.{suffix}": encoded(suffix), f"s{row:07}.cls": str(label).encode()}
            write_tar(root / name / f"test/{row}.tar", files)
        for beside in ("classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"):
            (root / name / beside).write_text("3\n")
    synsets = datasets.ClassLabel(names=SYNSETS)
    features = datasets.Features({"image": datasets.Image(), "label": synsets})
    images = [{"path": None, "bytes": encoded()}] * 1000
    imagenet = datasets.Dataset.from_dict({"image": images, "label": list(range(1000))}, features=features)
    for name in OF_IMAGENET:
        imagenet.save_to_disk(root / name)
    return root


@pytest.fixture(scope="module")
def loaded(data_root, processor) -> dict[str, ZeroShotDataset]:
    return {data.name: data for data in load_suite("natural_shift", processor, data_root=data_root)}


def labels_of(data: ZeroShotDataset) -> list[int]:
    return [data[i]["labels"] for i in range(len(data))]


def test_the_suite_holds_the_shifts_and_imagenet_on_the_same_classes(loaded):
    sizes = {name: (entry["num_images"], len(entry["class_names"])) for name, entry in SUITE.items()}
    assert sizes == {
        "imagenet": (50_000, 1000),
        "imagenet_v2": (10_000, 1000),
        "imagenet_v2_threshold": (10_000, 1000),
        "imagenet_v2_top": (10_000, 1000),
        "imagenet_sketch": (50_889, 1000),
        "imagenet_r": (30_000, 200),
        "imagenet_on_r": (10_000, 200),
        "imagenet_a": (7_500, 200),
        "imagenet_on_a": (10_000, 200),
        "objectnet": (18_574, 113),
        "imagenet_on_objectnet": (6_250, 113),
    }
    assert list(loaded) == list(sizes)
    assert all(data[0]["images"].shape == (3, SIZE, SIZE) for data in loaded.values())


def test_folders_of_imagenet_v2_are_numbers_and_not_places_in_sorted_text(loaded):
    for name in V2:
        assert labels_of(loaded[name]) == [0, 1, 10, 2, 999]
        assert IMAGENET[10] == "brambling" and loaded[name].class_names[10] == "brambling"


def test_each_variant_of_imagenet_v2_is_read_alone(loaded):
    keys = {name: {row.split("/")[0] for row in loaded[name].dataset["__url__"]} for name in V2}
    assert {len(loaded[name]) for name in V2} == {5} and all(keys.values())
    pixels = [loaded[name][0]["images"] for name in V2]
    assert not any((pixels[i] == pixels[j]).all() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_folders_of_the_original_downloads_work_too(tmp_path, processor):
    write_folders(tmp_path / "imagenet_v2/train", ["0", "1", "10", "2"])
    write_folders(tmp_path / "imagenet_v2_top/train", ["n01440764", "n01443537", "n01484850"])  # of 2019
    write_folders(tmp_path / "imagenet_r/test", ["n12267677", "n01443537"])
    sets = load_suite(
        "natural_shift", processor, names=["imagenet_v2", "imagenet_v2_top", "imagenet_r"], data_root=tmp_path
    )
    assert [labels_of(data) for data in sets] == [[0, 1, 10, 2], [0, 1, 2], [0, 199]]
    assert sets[2].class_names[199] == "acorn"


def test_labels_of_the_shards_count_the_classes_of_the_set(loaded):
    for name in SHARDS:
        assert labels_of(loaded[name]) == [0, len(loaded[name].class_names) - 1, 2]
    assert [loaded["imagenet_r"].class_names[i] for i in (0, 2, 199)] == ["goldfish", "hammerhead shark", "acorn"]
    assert [loaded["imagenet_a"].class_names[i] for i in (0, 2, 199)] == ["stingray", "junco", "acorn"]


def test_a_label_beyond_the_subset_is_refused(tmp_path, processor):
    write_tar(tmp_path / "imagenet_r/test/0.tar", {"s0.jpg": encoded(), "s0.cls": b"988"})  # ImageNet's own number
    with pytest.raises(ValueError, match="988.*not among the 200 classes"):
        load_suite("natural_shift", processor, names=["imagenet_r"], data_root=tmp_path)


def test_all_313_folders_of_objectnet_give_113_classes_in_the_order_of_folders(tmp_path, processor):
    overlap = [line.split("; ")[0] for line in (FOLDER / "labels/objectnet.txt").read_text().splitlines()]
    others = ["bed_sheet", "coffee_table", "egg", "dress_shirt", "whisk"]
    write_folders(tmp_path / "objectnet/test", [*overlap, *others])
    (data,) = load_suite("natural_shift", processor, names=["objectnet"], data_root=tmp_path)
    assert overlap == sorted(overlap) and labels_of(data) == list(range(113))
    names = dict(zip(overlap, data.class_names, strict=True))
    assert names["full_sized_towel"] == "bath towel" and names["hand_towel_or_rag"] == "dishrag or hand towel"
    assert names["nail_fastener"] == "nail (fastener)" and names["dress"] == "dress"


def test_several_imagenet_classes_are_one_of_objectnet(loaded):
    data = loaded["imagenet_on_objectnet"]
    kept = [SYNSETS.index(name) for name in ("analog clock", "digital clock", "barber chair", "wok")]
    rows = {label: i for i, label in enumerate(sorted(_covered("objectnet")))}  # as ImageNet lists them
    found = [data.class_names[data[rows[label]]["labels"]] for label in kept]
    assert found == ["alarm clock", "alarm clock", "chair", "wok"]
    assert len(data) == 125 == SUITE["imagenet_on_objectnet"]["num_images"] // 50


def _covered(name: str) -> list[int]:
    """Numbers of the ImageNet classes that the lines of a set's labels name, after the folder."""
    synsets = {prompt_name(synset): i for i, synset in enumerate(SYNSETS)}
    lines = (FOLDER / f"labels/{name}.txt").read_text().splitlines()
    return [synsets[prompt_name(label)] for line in lines for label in line.split("; ")[1:]]


@pytest.mark.parametrize("name", ["r", "a"])
def test_imagenet_is_cut_to_the_classes_of_a_set_of_200(loaded, name):
    data = loaded[f"imagenet_on_{name}"]
    covered = _covered(f"imagenet_{name}")
    assert covered == sorted(set(covered)) and len(covered) == len(data) == 200
    assert labels_of(data) == list(range(200))
    assert data.class_names == [IMAGENET[i] for i in covered] == loaded[f"imagenet_{name}"].class_names


def test_stored_labels_agree_with_each_other():
    lines = [line.split("; ") for line in (FOLDER / "labels/imagenet_names.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == [str(i) for i in range(1000)]
    assert [line[2] for line in lines] == SYNSETS
    wnids = [line[1] for line in lines]
    assert wnids == sorted(wnids) and all(wnid[0] == "n" and len(wnid) == 9 for wnid in wnids)
    for name in ("imagenet_r", "imagenet_a"):
        stored = [line.split("; ") for line in (FOLDER / f"labels/{name}.txt").read_text().splitlines()]
        assert [SYNSETS[wnids.index(wnid)] for wnid, _ in stored] == [synset for _, synset in stored]
    covered = _covered("objectnet")
    assert len(covered) == len(set(covered)) == 125
    names = SUITE["objectnet"]["class_names"]
    assert names == [name.lower() for name in names] and len(set(names)) == 113


def framed(size: tuple[int, int] = (24, 24)) -> datasets.Dataset:
    """White images in a red frame, one pixel wide."""
    image = Image.new("RGB", size, "red")
    image.paste("white", (1, 1, size[0] - 1, size[1] - 1))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    return datasets.Dataset.from_dict({"image": [image, image], "label": [0, 1]}, features=features)


def test_the_red_frame_of_objectnet_is_cut_off(processor):
    assert SUITE["objectnet"]["border"] == 2
    assert ZeroShotDataset(framed(), processor)[0]["images"].min() < 0.9
    assert ZeroShotDataset(framed(), processor, border=2)[0]["images"].min() == 1
    with pytest.raises(ValueError, match="row 0.*cannot be read"):
        ZeroShotDataset(framed((4, 4)), processor, border=2)[0]
    with pytest.raises(ValueError, match="border=-1"):
        ZeroShotDataset(framed(), processor, border=-1)


def test_the_hub_is_asked_for_one_variant_of_imagenet_v2(monkeypatch, processor):
    asked = []

    def load_part(part):
        asked.append((part.name, part.data_files, part.split))
        keys = [f"imagenetv2-top-images-format-val/{i % 1000}/a{i}" for i in range(10_000)]
        return datasets.Dataset.from_dict({"jpeg": [None] * len(keys), "__key__": keys})

    monkeypatch.setattr(sources, "load_part", load_part)
    (data,) = load_suite("natural_shift", processor, names=["imagenet_v2_top"])
    assert asked == [("vaishaal/ImageNetV2", "imagenetv2-top-images.tar.gz", "train")]
    assert data.dataset["__key__"][:] == [i % 1000 for i in range(10_000)]


def test_sets_are_evaluated_by_the_command(data_root, tmp_path, capsys):
    model = tmp_path / "model"
    for part in make_pair_for(IMAGENET + SUITE["objectnet"]["class_names"]):
        part.save_pretrained(model)
    names = ["imagenet_v2", "imagenet_a", "imagenet_on_objectnet"]
    evaluate.main(
        [*("--model", str(model), "--suite", "natural_shift", "--suite_sets", *names)]
        + [*("--data_root", str(data_root), "--attacks", "fgsm", "--eps", "1/255")]
    )
    rows = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line}
    assert [rows[name] for name in names] == [["1000", "5"], ["200", "3"], ["113", "125"]]


def test_sets_are_evaluated(loaded):
    attack = {"attack": "pgd", "eps": "1/255", "num_steps": 1}
    sets = [loaded[name] for name in (*V2, *SHARDS)]
    model, processor = make_pair_for(name for data in sets for name in data.class_names)
    report = evaluate_robustness(model, processor, sets, [attack], progress=False)
    assert [result.num_classes for result in report.sets] == [1000, 1000, 1000, 1000, 200, 200, 113]
