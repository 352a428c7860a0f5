"""Labels are looked up by name, in any order, and numbered from 0 over the classes of the suite."""

from pathlib import Path

import pytest
from support.tiny import make_images

from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.suites import load_suite


def labels_of(data: ZeroShotDataset) -> list[int]:
    return [data[i]["labels"] for i in range(len(data))]


@pytest.fixture
def own(tmp_path) -> Path:
    make_images(8).save_to_disk(tmp_path / "shapes")  # red disc, green disc, blue square, yellow square
    (tmp_path / "own.yaml").write_text(
        "shapes:\n  path: shapes\n  by_name: true\n  class_names: [rectangle, circle]\n"
        "  labels: [blue square; yellow square, Red_disc]\n"
    )
    return tmp_path / "own.yaml"


def test_labels_are_looked_up_in_any_order_and_several_make_one_class(own, processor):
    (data,) = load_suite(own, processor)  # whose path starts at the suite's own folder
    assert data.class_names == ["rectangle", "circle"] and labels_of(data) == [1, 0, 0] * 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[blue square; red disc, red disc]", "'red disc' stands for both 'rectangle' and 'circle'"),
        ("[cube, ball]", "calls its labels \\['red disc', .*none of its images.*\\['cube', 'ball'\\]"),
        ("[blue square]", "1 labels but 2 class names"),
    ],
)
def test_labels_that_cannot_be_looked_up_are_refused(own, processor, labels, message):
    lines = [line for line in own.read_text().splitlines() if "labels" not in line]
    own.write_text("\n".join([*lines, f"  labels: {labels}"]))
    with pytest.raises(ValueError, match=message):
        load_suite(own, processor)


def test_names_in_a_text_column_are_looked_up(own, processor):
    texts = ["red disc", "green disc", "blue square", "yellow square"] * 2
    data = make_images(8).remove_columns("label").add_column("label", texts)
    data.save_to_disk(own.parent / "texts")
    own.write_text(own.read_text().replace("path: shapes", "path: texts"))
    assert labels_of(load_suite(own, processor)[0]) == [1, 0, 0] * 2
