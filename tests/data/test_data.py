"""Data of every kind -> examples; sample ids that follow the sample; augmentation that follows the seed."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import CLASS_NAMES, SIZE, encoded, make_images, make_model, make_processor
from support.trainers import losses, make_trainer
from torch.utils.data import DataLoader

from hf_pmgaft import PMGAFTTrainer
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    StreamingImages,
    WithSampleId,
    ZeroShotDataset,
    augment,
    class_names_of,
    content_id,
    flatten_on_white,
    load_images,
    parse_set,
    training_examples,
)
from hf_pmgaft.evaluation import evaluate_robustness

LABELS = [0, 1, 2, 3] * 2


@pytest.fixture(scope="module")
def eight() -> datasets.Dataset:
    return make_images(8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, eight) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    eight.to_parquet(folder / "x.parquet")
    eight.save_to_disk(folder / "saved")
    datasets.DatasetDict(train=eight, test=eight.select(range(4))).save_to_disk(folder / "dict")
    for split, rows in (("train", range(8)), ("test", range(4))):
        for i in rows:
            file = folder / "folder" / split / CLASS_NAMES[eight[i]["label"]] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            eight[i]["image"].save(file)
    (folder / "hub" / "one").mkdir(parents=True)
    eight.to_parquet(folder / "hub" / "one" / "train.parquet")
    eight.select(range(4)).to_parquet(folder / "hub" / "one" / "test.parquet")
    (folder / "hub" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files:\n  - split: train\n    path: one/train.parquet\n"
        "  - split: test\n    path: one/test.parquet\n---\n"
    )
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["x.parquet", "saved", "dict", "folder", "hub:one", "x.parquet@anything"])
def test_every_source_gives_the_same_examples(sources, processor, eight, name, streaming):
    loaded = load_images(*parse_set(f"{sources}/{name}", "train"), streaming=streaming)
    assert isinstance(loaded, datasets.IterableDataset) == streaming
    data = training_examples(loaded, processor)
    assert sorted(data.class_names) == sorted(CLASS_NAMES)
    rows = list(data) if streaming else [data[i] for i in range(len(data))]
    wanted = ImageClassificationDataset(eight, processor)
    expected = {(content_id(row["pixel_values"]), CLASS_NAMES[row["labels"]]) for row in wanted}
    assert {(content_id(row["pixel_values"]), data.class_names[row["labels"]]) for row in rows} == expected
    assert len(expected) == len(rows) == 8


@pytest.mark.parametrize("name", ["dict@test", "folder@test", "hub:one@test"])
def test_splits_are_found(sources, name):
    assert len(load_images(*parse_set(f"{sources}/{name}"))) == 4


@pytest.mark.parametrize("name", ["dict@validation", "folder@validation", "hub:one@validation"])
def test_a_missing_split_is_named_with_those_there_are(sources, name):
    with pytest.raises(ValueError, match="'?validation.*(test.*train|train.*test)"):
        load_images(*parse_set(f"{sources}/{name}"))


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("image,label\n")
    with pytest.raises(ValueError, match="a.txt is no parquet file"):
        load_images(str(tmp_path / "a.txt"))


def test_names_of_sets_are_taken_apart_unless_they_are_paths(tmp_path):
    assert parse_set("user/name:config@validation") == ("user/name", "config", "validation")
    assert parse_set("user/name") == ("user/name", None, "test")
    odd = tmp_path / "a@b:c"
    odd.mkdir()
    assert parse_set(str(odd), "train") == (str(odd), None, "train")


def with_texts(eight, kind: str) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value(kind)})
    return eight.map(lambda row: {"label": CLASS_NAMES[row["label"]]}, features=features)


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_texts_are_labels(eight, processor, kind):
    texts = with_texts(eight, kind)
    by_text = ImageClassificationDataset(texts, processor)
    assert by_text.class_names == sorted(CLASS_NAMES)
    assert [by_text.class_names[row["labels"]] for row in by_text] == [CLASS_NAMES[i] for i in LABELS]
    given = ImageClassificationDataset(texts, processor, CLASS_NAMES)
    assert [row["labels"] for row in given] == LABELS
    assert [row["labels"] for row in StreamingImages(texts.to_iterable_dataset(), processor, CLASS_NAMES)] == LABELS


def test_given_names_take_the_place_of_class_label_s(eight):
    names = ["w", "x", "y", "z"]
    assert class_names_of(eight, "label", names) == names
    assert class_names_of(eight, "label") == CLASS_NAMES


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_picture_becomes_rgb_on_white(mode):
    picture = Image.new("RGB", (4, 4), "white").convert(mode)
    assert (np.asarray(flatten_on_white(picture)) == 255).all() and flatten_on_white(picture).mode == "RGB"
    red = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    assert not (np.asarray(flatten_on_white(red)) == 255).all()


def test_transparent_pixels_are_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert flatten_on_white(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 0
    palette.putpixel((1, 1), 1)
    assert flatten_on_white(palette).getpixel((0, 0)) == (255, 255, 255)
    assert flatten_on_white(palette).getpixel((1, 1)) == (0, 255, 0)


def test_photographs_are_turned_upright_as_datasets_does(eight, processor):
    picture = Image.fromarray(np.repeat(np.arange(20, dtype=np.uint8) * 12, 60).reshape(20, 20, 3))
    exif = Image.Exif()
    exif[274] = 6
    rows = {"image": [{"bytes": encoded(picture, format="JPEG", exif=exif), "path": None}], "label": [0]}
    photographs = datasets.Dataset.from_dict(rows, features=eight.features)
    expected = processor(images=photographs[0]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageClassificationDataset(photographs, processor)[0]["pixel_values"], expected)


def test_columns_of_paths_bytes_and_arrays_hold_images_too(eight, processor, tmp_path):
    picture = eight[0]["image"]
    picture.save(tmp_path / "a.png")
    wanted = ImageClassificationDataset(eight, processor)[0]["pixel_values"]
    for value in (str(tmp_path / "a.png"), encoded(picture), np.asarray(picture), picture):
        data = ImageClassificationDataset([{"image": value, "label": 0}], processor, CLASS_NAMES)
        torch.testing.assert_close(data[0]["pixel_values"], wanted, msg=str(type(value)))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_formats_and_transforms_are_followed(eight, processor, kind):
    wanted = ImageClassificationDataset(eight, processor)[5]
    assert torch.equal(
        ImageClassificationDataset(eight.with_format(kind), processor)[5]["pixel_values"], wanted["pixel_values"]
    )

    def make(batch):
        pixels = [processor(images=image, return_tensors="pt")["pixel_values"][0] for image in batch["image"]]
        return {"pixel_values": pixels, "labels": batch["label"]}

    made = training_examples(eight.with_transform(make), processor, CLASS_NAMES)
    assert isinstance(made, WithSampleId)
    assert torch.equal(made[5]["pixel_values"], wanted["pixel_values"]) and made[5]["sample_id"] == 5

    def mirror(batch):
        return {"image": [image.transpose(Image.FLIP_LEFT_RIGHT) for image in batch["image"]], "label": batch["label"]}

    mirrored = training_examples(eight.with_transform(mirror), processor, CLASS_NAMES)[5]["pixel_values"]
    torch.testing.assert_close(mirrored, wanted["pixel_values"].flip(-1))


class OtherProcessor:
    """A processor that returns what others return: arrays (PIL processors), tensors (torchvision), lists of them."""

    def __init__(self, convert):
        self.image_processor, self.convert = make_processor().image_processor, convert

    def __call__(self, **options):
        return {"pixel_values": self.convert(self.image_processor(**{**options, "return_tensors": "np"}))}


@pytest.mark.parametrize(
    "convert",
    [
        lambda out: out["pixel_values"],
        lambda out: list(out["pixel_values"]),
        lambda out: torch.from_numpy(out["pixel_values"]),
        lambda out: list(torch.from_numpy(out["pixel_values"])),
    ],
    ids=["array", "arrays", "tensor", "tensors"],
)
def test_processors_may_return_arrays_or_tensors(eight, processor, convert):
    wanted = ImageClassificationDataset(eight, processor)[0]["pixel_values"]
    data = ImageClassificationDataset(eight, processor)
    data.processor = other = OtherProcessor(convert)
    assert torch.equal(data[0]["pixel_values"], wanted)
    batch = Collator(other, 4)([data[0], data[1]])
    assert batch["pixel_values"].shape == (2, 3, SIZE, SIZE) and batch["pixel_values"].dtype == torch.float32


def test_evaluation_sets_are_in_0_1_at_the_model_s_size_or_their_own(eight, processor):
    data, native = ZeroShotDataset(eight, processor), ZeroShotDataset(eight, processor, native_size=True)
    assert data[0]["images"].shape == (3, SIZE, SIZE) and native[0]["images"].shape == (3, 20, 20)
    original = torch.from_numpy(np.array(eight[3]["image"])).permute(2, 0, 1) / 255
    torch.testing.assert_close(native[3]["images"], original)
    report = evaluate_robustness(
        make_model(), processor, [native], [{"attack": "pgd", "eps": "1/255", "num_steps": 1}], progress=False
    )
    assert report.sets[0].num_samples == 8


def test_half_precision_pixel_rows_train(tmp_path, eight, processor):
    rows = [dict(row) for row in ImageClassificationDataset(eight, processor)]
    trainer = make_trainer(tmp_path, eight, max_steps=1)
    halves = [{**row, "pixel_values": row["pixel_values"].half()} for row in rows]
    by_halves = PMGAFTTrainer(
        model=make_model(),
        args=trainer.args,
        train_dataset=halves,
        processing_class=processor,
        class_names=CLASS_NAMES,
        prompt_templates="a photo of the {}",
    )
    trainer.train()
    by_halves.train()
    assert losses(by_halves) == pytest.approx(losses(trainer), rel=0.05)


def test_pixel_rows_bring_their_class_names(eight, processor):
    made = eight.map(
        lambda row: {"pixel_values": processor(images=row["image"], return_tensors="np")["pixel_values"][0]},
        remove_columns="image",
    )
    data = training_examples(made, processor)
    assert data.class_names == CLASS_NAMES
    assert Collator(processor, 4)([data[2], data[3]])["labels"].tolist() == [2, 3]

    class Own(torch.utils.data.Dataset):
        class_names = ["a", "b"]

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": 0}

    assert training_examples(Own(), processor).class_names == ["a", "b"]
    assert training_examples(Own(), processor, ["c", "d"]).class_names == ["c", "d"]


def seen(data, workers: int, shuffle: bool = False, order=0) -> dict[int, int]:
    """Sample id -> checksum of the pixels, over one pass."""
    generator = torch.Generator().manual_seed(order)
    loader = DataLoader(
        data, 3, shuffle=shuffle, num_workers=workers, collate_fn=Collator(make_processor(), 4), generator=generator
    )
    found = {}
    for batch in loader:
        for i, pixels in zip(batch["sample_id"].tolist(), batch["pixel_values"], strict=True):
            assert i not in found
            found[i] = content_id(pixels)
    return found


def test_sample_ids_stay_with_their_images_in_any_order_and_with_workers(eight, processor):
    data = ImageClassificationDataset(eight, processor)
    first = seen(data, 0)
    assert list(first) == list(range(8)) and len(set(first.values())) == 8
    shuffled = seen(data, 2, shuffle=True, order=1)
    assert shuffled == first and list(shuffled) != list(first)


def test_sample_ids_stay_with_their_images_across_streams(eight, processor):
    first = seen(StreamingImages(eight.to_iterable_dataset(), processor), 0)
    shuffled = eight.to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=8)
    again = seen(StreamingImages(shuffled, processor), 2)
    assert again == first and len(first) == 8 and list(again) != list(first)
    images = ImageClassificationDataset(eight, processor)
    pixels_alone = [{name: row[name] for name in ("pixel_values", "labels")} for row in images]
    assert Collator(processor, 4)(pixels_alone)["sample_id"].tolist() == list(first)


def test_a_stream_is_shuffled_anew_each_epoch(eight, processor):
    data = StreamingImages(eight.to_iterable_dataset().shuffle(seed=3, buffer_size=8), processor)
    passes = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        passes.append([row["sample_id"] for row in data])
    assert passes[0] == passes[2] != passes[1] and sorted(passes[0]) == sorted(passes[1])


@pytest.fixture(scope="module")
def augmented() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seeds = sample_seeds(0, 0, torch.arange(200))
    return images, seeds, augment(images, seeds, 1.0)


def test_augmentation_is_a_function_of_image_and_seed_in_any_batch(augmented):
    images, seeds, out = augmented
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(augment(images[order], seeds[order], 1.0), out[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(augment(images[7:8], seeds[7:8], 1.0), out[7:8], rtol=0, atol=1e-6)
    state = torch.random.get_rng_state()
    augment(images, seeds, 1.0)
    assert torch.equal(state, torch.random.get_rng_state())
    same_image = augment(images[:1].expand(200, -1, -1, -1), seeds, 1.0)
    assert len({content_id(image) for image in same_image}) == 200


def test_augmentation_stays_in_0_1_and_strength_0_is_none(augmented):
    images, seeds, out = augmented
    assert out.min() == 0 and out.max() == 1 and (out - images).abs().mean() > 0.1
    assert torch.equal(augment(images, seeds, 0.0), images)


def gradient(count: int) -> torch.Tensor:
    """Images that grow brighter to the right."""
    return torch.linspace(0.3, 0.7, 16).expand(count, 3, 16, 16)


def test_half_of_the_images_are_flipped(augmented):
    _, seeds, _ = augmented
    out = augment(gradient(200), seeds, 0.3)
    flipped = out[..., :4].mean((1, 2, 3)) > out[..., -4:].mean((1, 2, 3))
    assert 0.4 < flipped.float().mean() < 0.6
    small = augment(gradient(200), seeds, 1e-4)
    mirrored = torch.where(flipped.view(-1, 1, 1, 1), gradient(200).flip(-1), gradient(200))
    torch.testing.assert_close(small, mirrored, rtol=0, atol=1e-3)


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


def test_booleans_are_labels(eight, processor):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("bool")})
    two = eight.map(lambda row: {"label": row["label"] % 2 == 1}, features=features)
    data = ZeroShotDataset(two, processor, ["healthy", "tumor"])
    labels = [data[i]["labels"] for i in range(len(data))]
    assert labels == [0, 1] * 4 and {type(label) for label in labels} == {int}


def test_splits_of_a_saved_set_are_joined(sources):
    assert len(load_images(f"{sources}/dict", split="train+test")) == 12
    with pytest.raises(ValueError, match="no split 'validation'"):
        load_images(f"{sources}/dict", split="train+validation")


def test_a_revision_is_asked_of_the_hub(monkeypatch):
    asked = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **options: asked.update(options))
    load_images("user/name", split="test", revision="refs/convert/parquet")
    assert asked == {"split": "test", "streaming": False, "revision": "refs/convert/parquet", "data_files": None}
