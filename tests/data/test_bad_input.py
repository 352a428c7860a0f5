"""What cannot work is refused with one message: what was passed, why it cannot work, what to change."""

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from PIL import Image
from support.tiny import CLASS_NAMES, SIZE, encoded, make_images, make_model, make_processor
from support.trainers import make_trainer
from torch import nn

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.config import check_output_dir
from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    StreamingImages,
    ZeroShotDataset,
    find_column,
    training_examples,
)
from hf_pmgaft.prompts import check_class_names

INTEGERS = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


@pytest.fixture(scope="module")
def eight() -> datasets.Dataset:
    return make_images(8)


def replace(data, row: int, features=INTEGERS, **values) -> datasets.Dataset:
    """The set with some columns of one row replaced, without decoding any image."""
    data = data.cast_column("image", datasets.Image(decode=False))
    columns = {name: list(data[name]) for name in data.column_names}
    for name, value in values.items():
        columns[name][row] = value
    return datasets.Dataset.from_dict(columns, features=features)


def config(**options) -> PMGAFTConfig:
    return PMGAFTConfig(use_cpu=True, **options)


# ---- Labels and class names ----


@pytest.mark.parametrize("label", [4, -1, None])
def test_a_label_outside_the_given_classes_is_found_before_training(tmp_path, eight, processor, label):
    with pytest.raises(ValueError, match=f"Row 3 has the label {label}, .*4 classes.*0 to 3.*Correct the row or pass"):
        ImageClassificationDataset(replace(eight, 3, label=label), processor, CLASS_NAMES)


def test_labels_of_texts_and_class_label_are_checked_as_well(eight, processor):
    texts = [{"image": row["image"], "label": CLASS_NAMES[row["label"]]} for row in eight]
    with pytest.raises(ValueError, match="Row 3 has the label 'yellow square'.*3 classes.*red disc"):
        ImageClassificationDataset(texts, processor, CLASS_NAMES[:3])
    with pytest.raises(ValueError, match="Row 3 has the label 3, "):
        ImageClassificationDataset(eight, processor, CLASS_NAMES[:3])
    with pytest.raises(ValueError, match="Row 0 has the label -1, "):
        ImageClassificationDataset(replace(eight, 0, eight.features, label=-1), processor)


@pytest.mark.parametrize("label", [1.5, float("nan"), [1], "1"])
def test_labels_that_are_no_whole_numbers_are_refused(eight, processor, label):
    with pytest.raises(ValueError, match="Row 0 has the label .*which is not among the 4 classes"):
        ImageClassificationDataset([{"image": eight[0]["image"], "label": label}], processor, CLASS_NAMES)


def test_a_label_outside_the_classes_is_named_by_its_row_when_a_stream_reaches_it(eight, processor):
    stream = StreamingImages(replace(eight, 3, label=9).to_iterable_dataset(), processor, CLASS_NAMES)
    rows = iter(stream)
    assert [next(rows)["labels"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="Row 3 of the stream has the label 9"):
        next(rows)


def test_labels_of_pixel_rows_are_checked_before_training(processor):
    rows = [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": label} for label in (0, 7)]
    with pytest.raises(ValueError, match="Row 1 has the label 7"):
        training_examples(rows, processor, CLASS_NAMES)
    made = datasets.Dataset.from_list([{**row, "pixel_values": row["pixel_values"].tolist()} for row in rows])
    with pytest.raises(ValueError, match="Row 1 has the label 7"):
        training_examples(made, processor, CLASS_NAMES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "A"], "Classes 0 and 2 share the name 'A'.*Give each class its own name"),
        (["a", "  "], r"Class names \[1\] are empty"),
        (["a"], "1 class name.*at least 2"),
        ("abc", "text 'abc' as class names. Pass a list"),
    ],
)
def test_class_names_that_cannot_be_told_apart_are_refused(tmp_path, eight, names, message):
    with pytest.raises(ValueError, match=message):
        check_class_names(names)
    with pytest.raises(ValueError, match=message):
        PMGAFTTrainer(
            make_model(),
            config(output_dir=str(tmp_path)),
            None,
            eight,
            processing_class=make_processor(),
            class_names=names,
        )


# ---- Columns ----


def test_missing_columns_are_named_with_those_there_are(tmp_path, eight):
    with pytest.raises(
        ValueError, match=r"none of the usual image columns \['image'.*it has \['x', 'label'\].*image_col"
    ):
        make_trainer(tmp_path, eight.rename_column("image", "x"))
    with pytest.raises(ValueError, match=r"none of the usual label columns.*it has \['image', 'x'\].*label_column"):
        make_trainer(tmp_path, eight.rename_column("label", "x"))
    with pytest.raises(ValueError, match=r"no image column 'photo'; it has \['image', 'label'\]"):
        find_column(eight, "photo", ("image",), "image")


def test_columns_that_name_no_classes_are_refused(tmp_path, eight):
    with pytest.raises(ValueError, match="Column 'label'.*names no classes. Pass `class_names`"):
        make_trainer(tmp_path, eight.cast(INTEGERS))
    rows = [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": 0}]
    with pytest.raises(ValueError, match="holds `pixel_values` but no class names.*Pass `class_names`"):
        make_trainer(tmp_path, rows)


def test_empty_sets_and_rows_without_names_are_refused(tmp_path, eight, processor):
    for empty in (eight.select([]), []):
        with pytest.raises(ValueError, match="has no rows.*Pass another set or split"):
            make_trainer(tmp_path, empty)
    with pytest.raises(ValueError, match="rows are tuple.*Pass rows that are dicts"):
        make_trainer(tmp_path, [(1, 2)])
    with pytest.raises(ValueError, match="evaluation set 'set' is a stream.*Load it without streaming"):
        ZeroShotDataset(eight.to_iterable_dataset(), processor)


# ---- Images and pixels ----


def broken(eight, processor) -> datasets.Dataset:
    good = encoded(eight[0]["image"])
    data = replace(eight, 2, eight.features, image={"bytes": b"no image", "path": None})
    data = replace(data, 5, eight.features, image={"bytes": good[: len(good) // 2], "path": None})
    return replace(data, 6, eight.features, image={"bytes": None, "path": "/nowhere.png"})


@pytest.mark.parametrize("row", [2, 5, 6])
def test_an_undecodable_image_is_named_by_its_row_when_reached(eight, processor, row):
    data = broken(eight, processor)
    message = f"The image in row {row}.*column 'image', cannot be read .*--check_data lists"
    with pytest.raises(ValueError, match=message):
        ImageClassificationDataset(data, processor)[row]
    with pytest.raises(ValueError, match=message):
        ZeroShotDataset(data, processor)[row]
    if row == 2:
        with pytest.raises(ValueError, match="image in row 2 of the stream"):
            list(StreamingImages(data.to_iterable_dataset(), processor))


def test_check_lists_every_broken_row(eight, processor):
    rows = [{"image": np.asarray(row["image"]).astype(np.float32), "label": row["label"]} for row in eight]
    rows[4]["image"][3, 3] = np.nan
    rows[7]["image"] = Image.fromarray(np.full((20, 20), 30000, np.int32))
    for data, wanted in (
        (ImageClassificationDataset(broken(eight, processor), processor), [2, 5, 6]),
        (StreamingImages(broken(eight, processor).to_iterable_dataset(), processor), [2, 5, 6]),
        (ZeroShotDataset(broken(eight, processor), processor), [2, 5, 6]),
        (ImageClassificationDataset(rows, processor, CLASS_NAMES), [4, 7]),
    ):
        with pytest.raises(ValueError, match=f"^{len(wanted)} of the rows cannot be used") as error:
            data.check()
        assert [i for i in range(8) if f"row {i}," in str(error.value)] == wanted
    ImageClassificationDataset(eight, processor).check()


def pixel_rows() -> list[dict]:
    return [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": i % 4} for i in range(6)]


def test_broken_pixel_rows_are_named_by_their_ids_in_training_and_by_check(tmp_path, processor):
    rows = pixel_rows()
    rows[1]["pixel_values"][0, 0, 0] = float("nan")
    rows[4]["pixel_values"][2, 3, 3] = float("inf")
    data = training_examples(rows, processor, CLASS_NAMES)
    with pytest.raises(ValueError, match=r"images of rows \[1, 4\] hold NaN or infinite"):
        Collator(processor, 4)([data[i] for i in range(6)])
    with pytest.raises(ValueError, match=r"(?s)^2 of the rows cannot be used.*rows \[1\].*rows \[4\]"):
        data.check()
    with pytest.raises(ValueError, match=r"rows \[[14]"):
        PMGAFTTrainer(
            make_model(),
            config(output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, disable_tqdm=True),
            train_dataset=rows,
            class_names=CLASS_NAMES,
            processing_class=processor,
        ).train()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (255 * torch.rand(3, SIZE, SIZE), r"rows \[9\] span .* but this processor's statistics allow -1.79 to 2.15"),
        (torch.full((3, SIZE, SIZE), -2.0), "made by another processor or not normalised"),
        (torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), "torch.uint8 of shape .*not floating point"),
        (torch.zeros(1, SIZE, SIZE), r"of shape \[1, 1, 16, 16\], not floating point \[B,3,H,W\]"),
    ],
)
def test_pixels_that_the_processor_cannot_have_made_are_refused(processor, pixels, message):
    with pytest.raises(ValueError, match=message):
        Collator(processor, 4)([{"pixel_values": pixels, "labels": 0, "sample_id": 9}])


def test_pixels_in_0_1_are_all_that_a_processor_without_normalisation_makes(processor):
    plain = make_processor()
    plain.image_processor.do_normalize = False
    row = {"pixel_values": torch.rand(3, SIZE, SIZE), "labels": 0}
    Collator(plain, 4)([row])
    with pytest.raises(ValueError, match="statistics allow 0.00 to 1.00"):
        Collator(plain, 4)([{**row, "pixel_values": 2.0 * torch.rand(3, SIZE, SIZE)}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, r"The batch has no labels; it has \['pixel_values', 'sample_id'\]. Pass rows"),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels are torch.float32 of shape \[2, 2\].*one integer per row"),
        ({"labels": 4}, r"Rows \[0, 1\] have the labels \[4, 4\], but there are 4 classes"),
    ],
)
def test_batches_without_a_class_per_image_are_refused(processor, change, message):
    rows = [{**row, "sample_id": i, **change} for i, row in enumerate(pixel_rows()[:2])]
    with pytest.raises(ValueError, match=message):
        Collator(processor, 4)(rows)


def test_images_of_several_sizes_are_refused(processor, eight):
    rows = [{"pixel_values": torch.zeros(3, SIZE, SIZE + i), "labels": 0, "sample_id": i} for i in range(2)]
    with pytest.raises(ValueError, match=r"rows \[0, 1\] have several shapes: \[\(3, 16, 16\), \(3, 16, 17\)\]"):
        Collator(processor, 4)(rows)
    wide = replace(eight, 1, eight.features, image={"bytes": encoded(Image.new("RGB", (30, 20))), "path": None})
    with pytest.raises(ValueError, match="row 1 of 'wide' is .*3, 20, 30.*several sizes.*native_size"):
        ZeroShotDataset(wide, processor, name="wide", native_size=True)[1]


# ---- Model, teacher, adapter ----


def test_models_that_are_no_dual_encoder_or_come_alone_are_refused(tmp_path, eight):
    with pytest.raises(TypeError, match="You passed a Linear, but .*image and a text tower. Pass one of: .*CLIPModel"):
        make_trainer(tmp_path, eight, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="without its processor.*Pass `processing_class=CLIPProcessor"):
        PMGAFTTrainer(make_model(), config(output_dir=str(tmp_path)), train_dataset=eight)
    with pytest.raises(TypeError, match="holds no pixel statistics.*Pass the model's CLIPProcessor"):
        args = config(output_dir=str(tmp_path))
        PMGAFTTrainer(make_model(), args, train_dataset=eight, processing_class=make_processor().tokenizer)


def test_teachers_that_cannot_guide_are_refused(tmp_path, eight):
    model = make_model()
    with pytest.raises(ValueError, match="the model itself as its teacher.*Leave `teacher` out"):
        make_trainer(tmp_path, eight, model, teacher=model)
    adapted = get_peft_model(model, LoraConfig(target_modules=r"vision_model\..*\.q_proj"))
    with pytest.raises(ValueError, match="the model itself as its teacher"):
        make_trainer(tmp_path, eight, adapted, teacher=model)
    with pytest.raises(ValueError, match=r"width are \(16, 16\), the model's \(16, 24\).*Pass a teacher of the"):
        make_trainer(tmp_path, eight, teacher=make_model(projection_dim=16))
    with pytest.raises(TypeError, match="You passed a Linear"):
        make_trainer(tmp_path, eight, teacher=nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nothing"]}, "target_modules {'nothing'} match nothing.*vision;.*'q_proj'"),
        ({"target_modules": "nothing"}, "'nothing' match nothing in the towers"),
        ({"target_modules": ["text_projection"]}, r"match nothing in the towers asked for \(vision"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, 'own vision_model.*bias.*teacher.*Use bias="none"'),
    ],
)
def test_adapters_that_cannot_be_trained_are_refused(tmp_path, eight, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, eight, peft_config=LoraConfig(**options))


def test_a_peft_config_beside_adapters_or_blocks_is_refused(tmp_path, eight):
    lora = LoraConfig(target_modules=["q_proj"])
    inside = LoraConfig(target_modules=r"vision_model\..*\.q_proj")
    with pytest.raises(ValueError, match="already has adapters.*merge_and_unload"):
        make_trainer(tmp_path, eight, get_peft_model(make_model(), inside), peft_config=lora)
    for options in ({"peft_config": lora}, {"model": get_peft_model(make_model(), inside)}):
        with pytest.raises(ValueError, match="an adapter and tuning='last_blocks'.*Pass one of them"):
            make_trainer(tmp_path, eight, tuning="last_blocks", **options)


def test_models_with_adapters_without_a_switch_are_refused(tmp_path, eight):
    lora, model = LoraConfig(target_modules=["q_proj"]), make_model()
    inject_adapter_in_model(lora, model)
    with pytest.raises(ValueError, match="CLIPModel with adapter layers inside.*cannot be switched off"):
        make_trainer(tmp_path, eight, model)


# ---- Places ----


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(tmp_path, eight):
    (tmp_path / "file").write_text("")
    for check in (check_output_dir, lambda folder: make_trainer(folder, eight)):
        with pytest.raises(ValueError, match="output_dir=.*cannot be written to.*Not a directory.*Pass a folder"):
            check(tmp_path / "file" / "out")


def test_resuming_from_nothing_is_refused(tmp_path, eight):
    trainer = make_trainer(tmp_path, eight)
    with pytest.raises(
        ValueError, match="no complete checkpoint to resume from.*Start without resume_from_checkpoint"
    ):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="nowhere' cannot be resumed from: there is no such folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    assert trainer.state.global_step == 0
