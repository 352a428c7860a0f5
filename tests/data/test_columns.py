"""Image, label and class names are found by usual names, or refused with what the set has."""

import datasets
import pytest
import torch
from support.sets import INTEGERS, replace
from support.tiny import CLASS_NAMES, SIZE, make_model, make_processor
from support.trainers import make_trainer

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.data import (
    ImageClassificationDataset,
    StreamingImages,
    ZeroShotDataset,
    check_label_column,
    class_names_of,
    find_column,
    training_examples,
)
from hf_pmgaft.data.columns import quick_labels
from hf_pmgaft.prompts import check_class_names

LABELS = [0, 1, 2, 3] * 2


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


# ---- Class names ----


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
            PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True),
            None,
            eight,
            processing_class=make_processor(),
            class_names=names,
        )


# ---- Labels ----


def test_booleans_are_labels(eight, processor):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("bool")})
    two = eight.map(lambda row: {"label": row["label"] % 2 == 1}, features=features)
    data = ZeroShotDataset(two, processor, ["healthy", "tumor"])
    labels = [data[i]["labels"] for i in range(len(data))]
    assert labels == [0, 1] * 4 and {type(label) for label in labels} == {int}


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


# ---- Labels ----


@pytest.fixture
def many():
    """2,500 rows whose labels are the classes in turn, in a shuffled order of rows and without images."""
    numbers = datasets.Dataset.from_dict({"label": [row % 4 for row in range(2500)]})
    return numbers.cast_column("label", datasets.ClassLabel(names=CLASS_NAMES)).shuffle(seed=0)


def test_labels_of_many_rows_are_read_in_their_order_by_few_looks_into_the_table(many, monkeypatch):
    looks = []
    query_table = datasets.arrow_dataset.query_table

    def counted(*args, **options):
        looks.append(args)
        return query_table(*args, **options)

    monkeypatch.setattr(datasets.arrow_dataset, "query_table", counted)
    labels = list(quick_labels(many, "label"))
    assert len(looks) <= 3
    assert labels == [many[row]["label"] for row in range(len(many))]


@pytest.mark.parametrize("row", [0, 999, 1000, 2499])
def test_the_first_label_outside_the_classes_is_named_by_its_row(row):
    rows = datasets.Dataset.from_dict({"label": [0] * row + [3] * (2500 - row)})
    with pytest.raises(ValueError, match=f"Row {row} of 'own' has the label 3, which is not among the 3 classes"):
        check_label_column(rows, "label", dict.fromkeys(CLASS_NAMES[:3]), "own")


def test_labels_that_are_images_are_refused_at_the_first_of_them(eight):
    with pytest.raises(ValueError, match="Row 0 has the label <PIL"):
        check_label_column(eight, "image", dict.fromkeys(CLASS_NAMES))
