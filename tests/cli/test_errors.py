"""What cannot work ends a command with one line."""

import pytest
from support.sets import replace
from support.tiny import make_images, make_processor
from torch.utils.data import DataLoader

from hf_pmgaft.cli import evaluate, train
from hf_pmgaft.cli.errors import one_line_errors
from hf_pmgaft.data import Collator, training_examples


def with_broken_row(folder) -> str:
    """A parquet file in which the sixth image is broken."""
    images = make_images(8)
    file = folder / "images.parquet"
    replace(images, 5, images.features, image={"bytes": b"no image", "path": None}).to_parquet(file)
    return str(file)


def test_a_row_that_a_worker_cannot_read_is_named_in_one_line():
    images = make_images(8)
    rows = training_examples(
        replace(images, 5, images.features, image={"bytes": b"no image", "path": None}), make_processor()
    )
    with pytest.raises(SystemExit) as ended, one_line_errors():
        list(DataLoader(rows, 4, num_workers=1, collate_fn=Collator(make_processor(), 4)))
    message = ended.value.code
    assert message.startswith("error: The image in row 5, column 'image', cannot be read (its 8 bytes are no image")
    assert message.endswith("--check_data lists all such rows beforehand.") and "\n" not in message


def test_a_broken_row_is_named_by_its_set_in_evaluation(tmp_path):
    flags = ["--eval_sets", with_broken_row(tmp_path), "--attacks", "fgsm"]
    with pytest.raises(SystemExit, match="^error: The image in row 5 of 'images', column 'image', cannot be read"):
        evaluate.main([*flags, "--num_workers", "1"])
    with pytest.raises(SystemExit, match="^error: The image in row 5 of 'images', column 'image', cannot be read"):
        evaluate.main(flags)
    with pytest.raises(SystemExit, match="^error: 1 of the rows cannot be used:\n  The image in row 5 of 'images'"):
        evaluate.main([*flags, "--check_data"])


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_broken_row_ends_training_in_one_line(tmp_path, monkeypatch, workers):
    flags = ["--recipe", "emoji", "--dataset_name", with_broken_row(tmp_path), "--output_dir", str(tmp_path / "run")]
    flags += ["--per_device_train_batch_size", "8", "--max_steps", "1", "--do_eval", "false", "--use_cpu"]
    with pytest.raises(SystemExit) as ended:
        train.main([*flags, "--dataloader_num_workers", workers])
    message = ended.value.code
    assert message.startswith("error: The image in row 5, column 'image', cannot be read") and "\n" not in message
