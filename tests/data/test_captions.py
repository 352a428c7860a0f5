"""Images with captions -> token ids, one caption per image and step; few-shot subsets."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from support.paths import EMOJI
from support.tiny import CLASS_NAMES, SIZE, make_images, make_processor
from torch.utils.data import DataLoader
from transformers import AutoProcessor

from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    StreamingImages,
    WithSampleId,
    few_shot,
    load_images,
    training_examples,
)
from hf_pmgaft.data.captions import CAPTION_COLUMNS
from hf_pmgaft.data.collator import check_captions, choose_captions, stack_captions

# Images 0 to 5 have one, two, three, one, ... captions, of different lengths.
CAPTIONS = [[f"this is {' '.join(['the'] * k)} disc" for k in range(1, 2 + i % 3)] for i in range(6)]


def captioned(captions=CAPTIONS, column: str = "caption", labels: bool = False) -> datasets.Dataset:
    data = make_images(len(captions)).add_column(column, captions)
    return data if labels else data.remove_columns("label")


def words(processor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=True)


def texts_of(processor, example) -> list[str]:
    return [words(processor, ids) for ids in example["input_ids"]]


def shard(file: Path, rows: range, write) -> None:
    """A webdataset shard; `write(i)` gives the files beside the image of row i, by extension."""
    images = make_images(rows.stop)
    with tarfile.open(file, "w") as tar:
        for i in rows:
            picture = io.BytesIO()
            images[i]["image"].save(picture, "PNG")
            for extension, content in {"png": picture.getvalue(), **write(i)}.items():
                entry = tarfile.TarInfo(f"{i:05d}.{extension}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    captioned().to_parquet(folder / "x.parquet")
    captioned().save_to_disk(folder / "saved")

    def files(i):
        record = {"caption": CAPTIONS[i][0], "captions": CAPTIONS[i]}
        return {"txt": CAPTIONS[i][0].encode(), "json": json.dumps(record).encode(), "cls": str(i % 4).encode()}

    for name, rows in (("00000", range(3)), ("00001", range(3, 6))):
        (folder / "shards").mkdir(exist_ok=True)
        shard(folder / "shards" / f"{name}.tar", rows, files)
        datasets.Dataset.from_dict({"url": ["x"]}).to_parquet(folder / "shards" / f"{name}.parquet")
        split = {"00000": "train", "00001": "test"}[name]
        (folder / "split" / split).mkdir(parents=True)
        shard(folder / "split" / split / f"{name}.tar", rows, files)
    return folder


# ---- Sources ----


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "column"),
    [("x.parquet", "caption"), ("x.parquet", "auto"), ("saved", "auto"), ("shards", "json.captions")],
)
def test_every_source_gives_the_same_captions(sources, processor, name, column, streaming):
    loaded = load_images(str(sources / name), streaming=streaming)
    data = training_examples(loaded, processor, caption_column=column)
    assert isinstance(data, StreamingImages if streaming else ImageClassificationDataset)
    rows = list(data) if streaming else [data[i] for i in range(len(data))]
    assert [texts_of(processor, row) for row in rows] == CAPTIONS
    wanted = ImageClassificationDataset(make_images(6), processor)
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(rows, wanted, strict=True))
    assert data.class_names is None
    data.check()


@pytest.mark.parametrize("column", ["txt", "auto", "json.caption"])
def test_a_shard_has_a_caption_and_perhaps_a_label_for_each_image(sources, processor, column):
    data = training_examples(load_images(str(sources / "shards" / "00001.tar")), processor, caption_column=column)
    assert [texts_of(processor, row) for row in data] == [captions[:1] for captions in CAPTIONS[3:]]
    assert [row["labels"] for row in data] == [3, 0, 1] and data.class_names is None


def test_shards_in_folders_of_splits_keep_apart(sources, processor):
    for split, captions in (("train", CAPTIONS[:3]), ("test", CAPTIONS[3:])):
        data = training_examples(load_images(str(sources / "split"), split=split), processor, caption_column="txt")
        assert [texts_of(processor, row) for row in data] == [texts[:1] for texts in captions]


def test_names_and_tags_of_the_emoji_are_their_captions():
    processor = AutoProcessor.from_pretrained(EMOJI / "model")
    emoji = load_images(str(EMOJI / "data"), "finetune")
    data = training_examples(emoji, processor, caption_column="label,tags")
    assert texts_of(processor, data[0]) == ["monkey face", "animal", "banana", "face", "monkey"]
    assert len(data.class_names) == 160 and data[0]["labels"] == 0
    batch = Collator(processor, 160)([data[i] for i in range(0, 700, 50)])
    assert batch["num_captions"].tolist() == [1 + len(emoji[i]["tags"]) for i in range(0, 700, 50)]


# ---- Captions of a row ----


def test_captions_are_stripped_and_the_empty_ones_dropped(processor):
    data = captioned([["  the\n red\t disc ", "", None, " "]] * 2)
    assert texts_of(processor, training_examples(data, processor, caption_column="caption")[1]) == ["the red disc"]


def test_several_columns_are_read_in_their_order(processor):
    data = captioned(["red disc"] * 4, "b").add_column("a", [["blue", "square"]] * 4)
    for given in ("a,b", ["a", "b"], ["a, b"]):
        row = training_examples(data, processor, caption_column=given)[0]
        assert texts_of(processor, row) == ["blue", "square", "red disc"]
    odd = captioned(["red disc"] * 4, "a,b")
    assert texts_of(processor, training_examples(odd, processor, caption_column="a,b")[0]) == ["red disc"]


def test_fields_of_records_and_of_lists_of_records_are_captions(processor):
    records = [{"raw": "red disc", "id": 1}, {"raw": "blue square", "id": 2}]
    rows = [{"image": make_images(1)[0]["image"], "meta.json": {"s": records}}] * 2
    for data in (rows, captioned([records] * 2, "s")):
        name = "meta.json.s.raw" if data is rows else "s.raw"
        row = training_examples(data, processor, caption_column=name)[0]
        assert texts_of(processor, row) == ["red disc", "blue square"]


@pytest.mark.parametrize("column", CAPTION_COLUMNS)
def test_usual_names_are_found(processor, column):
    data = training_examples(captioned(["red disc"] * 4, column), processor, caption_column="auto")
    assert texts_of(processor, data[0]) == ["red disc"]


def test_long_captions_are_cut_and_end_in_the_end_token(processor):
    row = training_examples(captioned(["the " * 99, "red"]), processor, caption_column="caption")[0]
    assert row["input_ids"].shape == (1, 16) and row["input_ids"][0, -1] == processor.tokenizer.eos_token_id


def test_a_label_column_of_names_gives_classes_and_one_of_numbers_labels(processor):
    named = training_examples(captioned(labels=True), processor, caption_column="caption")
    assert named.class_names == CLASS_NAMES and [row["labels"] for row in named] == [0, 1, 2, 3, 0, 1]
    numbers = captioned(labels=True).cast_column("label", datasets.Value("int64"))
    data = training_examples(numbers, processor, caption_column="caption")
    assert data.class_names is None and [row["labels"] for row in data] == [0, 1, 2, 3, 0, 1]
    texts = captioned(["red disc"] * 3 + ["blue square"] * 3, "label" + "s")
    assert training_examples(texts, processor, caption_column="labels").label_column is None


# ---- Batches ----


def batch_of(processor, rows, **options) -> dict[str, torch.Tensor]:
    data = training_examples(captioned(), processor, caption_column="caption")
    return Collator(processor, **options)([data[i] for i in rows])


def test_batches_hold_every_caption_with_its_mask_and_number(processor):
    batch = batch_of(processor, [4, 2, 3])
    assert batch["pixel_values"].shape == (3, 3, SIZE, SIZE) and batch["num_captions"].tolist() == [2, 3, 1]
    # The longest caption: start, this is the the the disc, end.
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 3, 8)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == batch["num_captions"].dtype == torch.int64
    for row, i in enumerate([4, 2, 3]):
        padded = CAPTIONS[i] + CAPTIONS[i][:1] * (3 - len(CAPTIONS[i]))
        assert [words(processor, ids) for ids in batch["input_ids"][row]] == padded
        lengths = [len(processor.tokenizer(text)["input_ids"]) for text in padded]
        assert batch["attention_mask"][row].sum(1).tolist() == lengths
    assert batch_of(processor, [3])["input_ids"].shape == (1, 1, 6)


def test_a_caption_is_encoded_as_the_processor_would(processor):
    batch = batch_of(processor, range(6))
    wanted = processor.tokenizer([captions[0] for captions in CAPTIONS], padding=True, return_tensors="pt")
    length = wanted["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, 0, :length], wanted["input_ids"])
    assert torch.equal(batch["attention_mask"][:, 0, :length], wanted["attention_mask"])


def test_without_labels_each_image_is_a_class_of_its_own(processor):
    assert batch_of(processor, [4, 2, 3])["labels"].tolist() == [4, 2, 3]
    stream = training_examples(captioned().to_iterable_dataset(), processor, caption_column="caption")
    batch = Collator(processor)(list(stream))
    assert torch.equal(batch["labels"], batch["sample_id"])
    with pytest.raises(ValueError, match="The batch has no labels"):
        batch_of(processor, [1, 2], num_classes=4)
    with pytest.raises(ValueError, match="The batch has no labels"):
        Collator(processor)([{"pixel_values": torch.zeros(3, SIZE, SIZE)}])


def test_pixels_are_still_checked(processor):
    rows = [{"pixel_values": torch.full((3, SIZE, SIZE), 200.0), "input_ids": [0, 1], "sample_id": 5}]
    with pytest.raises(ValueError, match=r"pixel values of rows \[5\]"):
        Collator(processor)(rows)


def test_processor_made_rows_pass_as_they_are(processor):
    images = make_images(3)
    made = [
        {key: value[0] for key, value in processor(text=text, images=row["image"], return_tensors="pt").items()}
        for text, row in zip(("red", "the red disc", "blue"), images, strict=True)
    ]
    lists = datasets.Dataset.from_list([{key: value.tolist() for key, value in row.items()} for row in made])
    for rows in (made, lists):
        data = training_examples(rows, processor, caption_column="caption")
        assert isinstance(data, WithSampleId)
        data.check()
        batch = Collator(processor)([data[i] for i in range(3)])
        assert batch["input_ids"].shape == (3, 1, 5) and batch["num_captions"].tolist() == [1, 1, 1]
        assert [words(processor, ids[0]) for ids in batch["input_ids"]] == ["red", "the red disc", "blue"]
        assert batch["labels"].tolist() == [0, 1, 2]


def test_collators_of_one_s_own_may_give_one_caption_per_image(processor):
    def collate(rows):
        pixels = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pixels, "input_ids": torch.stack([row["input_ids"][0, :6] for row in rows])}

    batch = batch_of(processor, [0, 3], collate=collate)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 1, 6)
    assert batch["num_captions"].tolist() == [1, 1] and len(set(batch["labels"].tolist())) == 2


# ---- The choice ----


@pytest.fixture(scope="module")
def many() -> dict[str, torch.Tensor]:
    """1,200 images with one to four captions, each of one token: 10 times the image's number of captions, plus k."""
    counts = [1 + i % 4 for i in range(1200)]
    return stack_captions([{"input_ids": torch.tensor([[10 * c + k] for k in range(c)])} for c in counts])


def test_the_choice_follows_from_the_seed_in_any_batch(processor, many):
    seeds = sample_seeds(0, 3, torch.arange(1200))
    ids, mask = choose_captions(many, seeds)
    assert ids.shape == mask.shape == (1200, 1)
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    shuffled = {name: value[order] for name, value in many.items()}
    assert torch.equal(choose_captions(shuffled, seeds[order])[0], ids[order])
    for rows in ([0, 1], [3], [4, 7, 2, 1]):
        small = batch_of(processor, [i % 6 for i in rows])
        large = batch_of(processor, range(6))
        some = torch.tensor([i % 6 for i in rows])
        chosen, mask = choose_captions(small, seeds[some])
        wanted, wanted_mask = choose_captions(large, seeds[:6])
        for text, attended, other, i in zip(chosen, mask, wanted_mask[some], some, strict=True):
            assert words(processor, text) == words(processor, wanted[i]) and attended.sum() == other.sum()


def test_every_caption_has_the_same_chance_and_copies_are_never_counted(many):
    chosen = choose_captions(many, sample_seeds(0, 3, torch.arange(1200)))[0][:, 0]
    for count in (1, 2, 3, 4):
        found = chosen[count - 1 :: 4] - 10 * count
        shares = torch.bincount(found, minlength=count) / 300
        assert len(shares) == count and (shares - 1 / count).abs().max() < 0.1


def test_over_steps_an_image_is_paired_with_all_its_captions(many):
    steps = [choose_captions(many, sample_seeds(0, step, torch.arange(1200)))[0] for step in range(30)]
    assert not torch.equal(steps[0], steps[1])
    assert {int(ids[3]) for ids in steps} == {40, 41, 42, 43} and {int(ids[0]) for ids in steps} == {10}


def test_the_global_random_state_is_left_alone(many):
    state = torch.random.get_rng_state()
    choose_captions(many, sample_seeds(0, 0, torch.arange(1200)))
    assert torch.equal(state, torch.random.get_rng_state())


def test_workers_and_streams_give_the_same_captions(processor):
    def seen(data, workers):
        loader = DataLoader(data, 2, num_workers=workers, collate_fn=Collator(processor))
        found = []
        for batch in loader:
            seeds = sample_seeds(0, 0, batch["sample_id"])
            found += [words(processor, ids) for ids in choose_captions(batch, seeds)[0]]
        return found

    data = training_examples(captioned(), processor, caption_column="caption")
    assert seen(data, 1) == seen(data, 0)
    stream = training_examples(captioned().to_iterable_dataset(), processor, caption_column="caption")
    assert seen(stream, 1) == seen(stream, 0)


# ---- What cannot work ----


@pytest.mark.parametrize("empty", [[], [""], ["  ", None]])
def test_an_image_without_caption_is_named_by_its_row(processor, empty):
    broken = captioned([*CAPTIONS[:2], empty, *CAPTIONS[3:5], empty])
    data = training_examples(broken, processor, caption_column="caption")
    message = "Row 2 has no caption: there is no text in 'caption'. Write one or remove the row; --check_data lists"
    with pytest.raises(ValueError, match=message):
        data[2]
    with pytest.raises(ValueError, match="(?s)^2 of the rows cannot be used.*Row 2 has.*Row 5 has"):
        data.check()
    with pytest.raises(ValueError, match="Row 2 of the stream has no caption"):
        list(training_examples(broken.to_iterable_dataset(), processor, caption_column="caption"))


def test_an_empty_column_beside_a_full_one_is_no_fault(processor):
    data = captioned().add_column("alt", [None] * 6)
    assert len(training_examples(data, processor, caption_column="alt,caption")[2]["input_ids"]) == 3
    with pytest.raises(ValueError, match="Row 2 has no caption: there is no text in 'alt'"):
        training_examples(data, processor, caption_column="alt")[2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("title", r"no caption column 'title'; it has \['image', 'caption', 'record', 'number'\]. Pass one of them"),
        ("caption,title", "no caption column 'title'"),
        ("record.c", r"no 'c' in 'record', which has \['a', 'b'\]. Pass the right one"),
        ("record", "caption_column='record'.*no text. Pass a column of texts .* or a field such as 'record.a'"),
        ("number", "caption_column='number', but that column is Value.*int64.*no text"),
        ("image", "caption_column='image', but that column is Image"),
    ],
)
def test_columns_without_texts_are_refused_before_training(processor, column, message):
    data = captioned().add_column("record", [{"a": "x", "b": "y"}] * 6).add_column("number", [1] * 6)
    with pytest.raises(ValueError, match=message):
        training_examples(data, processor, caption_column=column)
    with pytest.raises(ValueError, match=message):
        training_examples(data.to_iterable_dataset(), processor, caption_column=column)


def test_a_set_without_any_usual_name_is_refused(processor):
    with pytest.raises(ValueError, match=r"none of the usual caption columns \['caption'.*it has \['image', 'x'\]"):
        training_examples(captioned(column="x"), processor, caption_column="auto")


@pytest.mark.parametrize("cell", [7, {"a": "x"}, ["red", 7], np.ones(2)])
def test_cells_without_texts_are_named_by_their_row(processor, cell):
    rows = [{"image": make_images(1)[0]["image"], "caption": value} for value in ("red disc", cell)]
    data = training_examples(rows, processor, caption_column="caption")
    with pytest.raises(
        ValueError, match="Row 1 has .* in the caption column 'caption', which is .* and no text. Pass"
    ):
        data[1]


def test_a_processor_that_cannot_read_captions_is_refused(processor):
    with pytest.raises(ValueError, match="caption_column with a CLIPImageProcessor.*no tokenizer.*CLIPProcessor"):
        training_examples(captioned(), processor.image_processor, caption_column="caption")
    endless = make_processor()
    endless.tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="names no model_max_length.*CLIP: 77"):
        training_examples(captioned(), endless, caption_column="caption")


def test_rows_that_are_made_without_their_captions_are_refused(processor):
    pixels = [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": 0, "caption": "red disc"}] * 2
    with pytest.raises(ValueError, match="caption_column='caption'.*pixel_values and no input_ids.*Pass images, or"):
        training_examples(pixels, processor, CLASS_NAMES, caption_column="caption")
    made = training_examples(captioned(labels=True), processor)
    with pytest.raises(ValueError, match="ImageClassificationDataset that was made without captions. Pass caption_co"):
        training_examples(made, processor, caption_column="caption")


def test_labels_that_stand_for_nothing_are_named_by_their_row(processor):
    data = captioned(labels=True).cast_column("label", datasets.Value("int64"))
    rows = [{**row, "label": "red" if i == 3 else row["label"]} for i, row in enumerate(data)]
    with pytest.raises(ValueError, match="Row 3 has the label 'red', which is no number.*`class_names`"):
        training_examples(rows, processor, caption_column="caption")[3]


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (torch.zeros(2, 5), {}, r"torch.float32 of shape \[2, 5\].*for 2 images. Pass integers"),
        (torch.zeros(3, 5).long(), {}, r"shape \[3, 5\].*for 2 images"),
        (torch.zeros(2).long(), {}, r"shape \[2\]"),
        (torch.zeros(2, 5).long(), {"attention_mask": torch.ones(2, 4)}, r"attention mask \[2, 4\]"),
        (torch.zeros(2, 1, 5).long(), {"num_captions": torch.tensor([1, 2])}, r"num_captions=\[1, 2\].*from 1 to"),
        (torch.zeros(2, 1, 5).long(), {"num_captions": torch.tensor([0, 1])}, r"num_captions=\[0, 1\]"),
    ],
)
def test_captions_of_other_shapes_are_refused(ids, options, message):
    with pytest.raises(ValueError, match=message):
        check_captions({"pixel_values": torch.zeros(2, 3, 4, 4), "input_ids": ids, **options})


@pytest.mark.parametrize("ids", [[[1, 2], [3]], [], ["a"], [0.5]])
def test_token_ids_that_make_no_captions_are_named_by_their_row(ids):
    with pytest.raises(ValueError, match="token ids or mask of row 4 make no captions.*Pass integers"):
        stack_captions([{"input_ids": ids, "sample_id": 4}])


# ---- Few shots ----


def shots_of(data, shots: int, seed: int = 0) -> dict[str, list[int]]:
    few = few_shot(data, shots, seed)
    rows = {}
    for row in few:
        rows.setdefault(few.class_names[row["labels"]], []).append(row["sample_id"])
    return rows


def test_each_class_has_so_many_images_with_the_ids_of_the_whole_set(processor):
    data = training_examples(make_images(32), processor)
    few = few_shot(data, 3)
    assert len(few) == 12 and len(data) == 32 and few.class_names == CLASS_NAMES
    assert [len(rows) for rows in shots_of(data, 3).values()] == [3] * 4
    for row in few:
        assert torch.equal(row["pixel_values"], data[row["sample_id"]]["pixel_values"])
        assert row["labels"] == data[row["sample_id"]]["labels"]
    few.check()


def test_the_seed_draws_and_fewer_shots_are_among_the_more(processor):
    data = training_examples(make_images(64), processor)
    assert shots_of(data, 4) == shots_of(data, 4)
    assert len({str(shots_of(data, 4, seed)) for seed in range(5)}) == 5
    fewer, more = shots_of(data, 2), shots_of(data, 4)
    assert all(set(fewer[name]) < set(more[name]) for name in CLASS_NAMES)
    assert len({tuple(rows[i] // 4 for i in range(4)) for rows in more.values()}) > 1  # no class copies another's draw


def test_other_classes_do_not_change_the_choice(processor):
    images = make_images(64)
    alone = images.filter(lambda label: label in (1, 3), input_columns="label")
    numbers = {1: 0, 3: 1}
    rows = [{"image": row["image"], "label": numbers[row["label"]]} for row in alone]
    two = shots_of(training_examples(rows, processor, [CLASS_NAMES[1], CLASS_NAMES[3]]), 4)
    four = shots_of(training_examples(images, processor), 4)
    place = [i for i in range(64) if i % 4 in (1, 3)]
    assert {name: [place[i] for i in rows] for name, rows in two.items()} == {name: four[name] for name in two}


def test_texts_transforms_and_captions_have_shots_too(processor):
    images = captioned([["red"]] * 16, labels=True)
    wanted = [row["sample_id"] for row in few_shot(training_examples(images, processor), 2)]
    texts = [{**row, "label": CLASS_NAMES[row["label"]]} for row in images]
    transformed = images.with_transform(lambda batch: batch)
    for data in (texts, transformed, images):
        few = few_shot(training_examples(data, processor, CLASS_NAMES, caption_column="caption"), 2)
        assert [row["sample_id"] for row in few] == wanted and "input_ids" in few[0]


def test_a_broken_image_of_a_subset_is_named_by_its_row_in_the_file(processor):
    rows = [dict(row) for row in make_images(8)]
    data = training_examples(rows, processor, CLASS_NAMES)
    row = few_shot(data, 1).sample_ids[-1]
    rows[row]["image"] = b"no image"
    with pytest.raises(ValueError, match=f"^1 of the rows cannot be used.*\n.*image in row {row}, "):
        few_shot(data, 1).check()


def test_shots_that_cannot_be_drawn_are_refused(processor):
    data = training_examples(make_images(8), processor)
    with pytest.raises(ValueError, match="shots=0, which leaves no image"):
        few_shot(data, 0)
    uneven = make_images(8).select(range(7))
    with pytest.raises(ValueError, match=r"shots=2, but 1 of the 4 classes have fewer images: 'yellow square' \(1\)"):
        few_shot(training_examples(uneven, processor), 2)
    with pytest.raises(ValueError, match=r"'missing' \(0\)"):
        few_shot(training_examples(make_images(8), processor, [*CLASS_NAMES, "missing"]), 2)
    with pytest.raises(ValueError, match="with a StreamingImages.*without streaming"):
        few_shot(training_examples(make_images(8).to_iterable_dataset(), processor), 1)
    with pytest.raises(ValueError, match="no label column, so there are no classes"):
        few_shot(training_examples(captioned(), processor, caption_column="caption"), 1)


def test_the_script_reads_captions_and_shots_from_flags_and_yaml(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EMOJI.parent))
    from run_pmgaft import DataArguments, load_training_set

    from hf_pmgaft.arguments import parse_args

    processor = AutoProcessor.from_pretrained(EMOJI / "model")
    flags = ["--dataset_name", f"{EMOJI}/data:finetune", "--caption_column", "label,tags", "--shots", "1"]
    (by_flags,) = parse_args((DataArguments,), flags)
    file = tmp_path / "captions.yaml"
    file.write_text(f'dataset_name: "{EMOJI}/data:finetune"\ncaption_column: [label, tags]\nshots: 1\n')
    (by_file,) = parse_args((DataArguments,), ["--config", str(file)])
    one, other = (load_training_set(arguments, processor, 0) for arguments in (by_flags, by_file))
    assert len(one) == 160 and one.sample_ids == other.sample_ids
    assert torch.equal(one[7]["input_ids"], other[7]["input_ids"]) and len(one[7]["input_ids"]) > 1
    assert load_training_set(by_flags, processor, 1).sample_ids != one.sample_ids
