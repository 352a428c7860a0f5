"""The training set that flags and a YAML file describe."""

from itertools import islice

import pytest
import torch
from support.paths import EMOJI
from transformers import AutoProcessor

from hf_pmgaft.arguments import parse_args
from hf_pmgaft.cli.train_arguments import DataArguments
from hf_pmgaft.cli.train_setup import load_training_set
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.models import pixel_statistics


def test_the_script_reads_captions_and_shots_from_flags_and_yaml(tmp_path):
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


def test_streams_are_shuffled_by_the_seed_unless_the_buffer_is_empty():
    processor = AutoProcessor.from_pretrained(EMOJI / "model")

    def first_labels(seed, *flags):
        flags = ["--dataset_name", f"{EMOJI}/data:finetune", "--streaming", "true", *flags]
        (arguments,) = parse_args((DataArguments,), flags)
        examples = load_training_set(arguments, processor, seed)
        return [row["label"] for row in islice(examples.dataset, 40)]

    in_order = first_labels(0, "--shuffle_buffer", "0")
    assert in_order == first_labels(1, "--shuffle_buffer", "0")
    assert first_labels(0) == first_labels(0) != first_labels(1) != in_order
    with pytest.raises(ValueError, match="shuffle_buffer=-5, from which no row can be drawn"):
        first_labels(0, "--shuffle_buffer", "-5")


@pytest.mark.parametrize(
    "flags", [[], ["--cache_images", "4"], ["--shots", "1"], ["--streaming", "true", "--shuffle_buffer", "0"]]
)
def test_training_images_are_resized_as_those_of_evaluation_from_any_source(flags):
    processor = AutoProcessor.from_pretrained(EMOJI / "model")
    resize = 2 * processor.image_processor.crop_size["height"]
    flags = ["--dataset_name", f"{EMOJI}/data:finetune", "--resize", str(resize), *flags]
    (arguments,) = parse_args((DataArguments,), flags)
    example = next(iter(load_training_set(arguments, processor, 0)))

    row = example["sample_id"] if "--streaming" not in flags else 0
    data = ZeroShotDataset(load_images(f"{EMOJI}/data", "finetune", "train"), processor, resize=resize)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in pixel_statistics(processor))
    torch.testing.assert_close(example["pixel_values"] * std + mean, data[row]["images"])
