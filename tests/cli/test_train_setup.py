"""The training set that flags and a YAML file describe."""

from itertools import islice

import pytest
import torch
from support.hub_server import READER
from support.paths import EMOJI
from transformers import AutoProcessor

from hf_pmgaft.arguments import parse_args
from hf_pmgaft.cli.before_and_after import comparison_table
from hf_pmgaft.cli.train_arguments import TYPES, DataArguments
from hf_pmgaft.cli.train_setup import load_training_set, make_trainer
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


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_expired", "the Hub does not take the token"), (READER, ".*the token is for reading alone")],
)
def test_a_push_that_would_fail_is_found_before_anything_is_loaded(hub, tmp_path, token, words):
    line = ["--recipe", "emoji", "--model_name_or_path", "no/model", "--output_dir", str(tmp_path / "run")]
    line += ["--use_cpu", "--push_to_hub", "--hub_model_id", "user/clip", "--hub_token", token]
    with pytest.raises(ValueError, match=f"push_to_hub for the repository 'user/clip', but {words}"):
        make_trainer(*parse_args(TYPES, line))
    assert not hub.repos and not hub.served


def test_the_model_before_training_is_measured_under_its_own_pixel_statistics(tmp_path):
    flags = [
        "--output_dir",
        str(tmp_path),
        "--max_steps",
        "1",
        "--eval_sets",
        f"{EMOJI}/data:food",
        "--report_to",
        "none",
    ]
    flags += ["--eval_max_samples", "4", "--eval_num_steps", "1", "--per_device_train_batch_size", "8", "--use_cpu"]
    mean, std = ["0.485", "0.456", "0.406"], ["0.229", "0.224", "0.225"]
    trainer = make_trainer(
        *parse_args(TYPES, ["--recipe", "emoji", *flags, "--image_mean", *mean, "--image_std", *std])
    )
    before = trainer.evaluate_robustness()
    trainer.train()
    after = trainer.evaluate_robustness()

    its_own = pixel_statistics(AutoProcessor.from_pretrained(EMOJI / "model"))
    assert [before.model["image_mean"], before.model["image_std"]] == [list(values) for values in its_own]
    assert after.model["image_mean"] == [0.485, 0.456, 0.406] and after.model["image_std"] == [0.229, 0.224, 0.225]
    assert before.protocol_hash == after.protocol_hash
    assert (
        after.provenance["training"]["image_mean"] == after.model["image_mean"] and "training" not in before.provenance
    )
    assert "before: the model as it came" in comparison_table(before, after, None)
    assert "before: the model" not in comparison_table(after, after, None)
