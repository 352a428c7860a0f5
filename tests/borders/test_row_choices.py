"""How many rows, and which: shots, sample ids, limits and sizes."""

import json

import numpy as np
import pytest
import torch
from support.borders import Refused, check, outcomes
from support.tiny import make_images, make_model, make_processor

from hf_pmgaft.cli import evaluate
from hf_pmgaft.cli.train import parse
from hf_pmgaft.data import ZeroShotDataset, few_shot, read_sample_ids, training_examples
from hf_pmgaft.evaluation import NearestClassMean, evaluate_robustness
from hf_pmgaft.evaluation.plan import sample_ids
from hf_pmgaft.models import at_resolution

NO_ROWS = Refused("which are no row numbers. Pass integers.")
OUTSIDE = Refused("which has the rows 0 to 7")

SAMPLE_IDS = {
    "a list": ([6, 1], [6, 1]),
    "a tuple": ((0, 7), [0, 7]),
    "a range": (range(2, 4), [2, 3]),
    "a NumPy array": (np.array([3, 5]), [3, 5]),
    "all": (None, None),
    "none": ([], Refused("Pass at least one")),
    "one beyond the end": ([0, 8], OUTSIDE),
    "from the end": ([-1], OUTSIDE),
    "one twice": ([1, 3, 1], Refused("[1] of 'own' more than once")),
    "texts": (["1", "2"], NO_ROWS),
    "fractions": ([1.5], NO_ROWS),
    "whole floats": ([1.0], NO_ROWS),
    "a mask": ([True, False], NO_ROWS),
    "nothing among them": ([1, None], NO_ROWS),
    "a text": ("12", Refused("'12' as sample ids of 'own'. Pass a list of row numbers.")),
    "a number": (3, Refused("3 as sample ids of 'own'. Pass a list of row numbers.")),
    "a dict": ({"own": [1]}, Refused("Pass a list of row numbers.")),
    "a nested list": ([[1, 2]], NO_ROWS),
}


@outcomes(SAMPLE_IDS)
def test_sample_ids(given, outcome):
    data = make_images(8)
    check(lambda: ZeroShotDataset(data, make_processor(), name="own", sample_ids=given).sample_ids, outcome)


FILES = {
    "rows by set": ('{"own": [6, 1]}', {"own": [6, 1]}),
    "several sets": ('{"own": [6], "other": []}', {"own": [6], "other": []}),
    "a byte order mark": ('\ufeff{"own": [1]}', {"own": [1]}),
    "Windows line ends": ('{\r\n"own": [1]\r\n}\r\n', {"own": [1]}),
    "a list": ("[6, 1]", Refused("which are no lists of row numbers by set. Write such as")),
    "a number of rows": ('{"own": 6}', Refused("which are no lists of row numbers by set")),
    "a text": ('"own"', Refused("which are no lists of row numbers by set")),
    "nothing": ("", Refused("which are no JSON (Expecting value")),
    "YAML": ("own: [6, 1]", Refused("which are no JSON (Expecting value")),
    "a comma too many": ('{"own": [6, 1,]}', Refused("which are no JSON (")),
    "lines of JSON": ('{"own": [6]}\n{"other": [1]}', Refused("which are no JSON (Extra data")),
    "UTF-16": ('{"own": [1]}'.encode("utf-16"), Refused("which are no JSON ('utf-8' codec can't decode")),
    "no file": (None, Refused("No such file", FileNotFoundError)),
}


@outcomes(FILES)
def test_files_of_sample_ids(given, outcome, tmp_path):
    file = tmp_path / "rows.json"
    if given is not None:
        file.write_bytes(given if isinstance(given, bytes) else given.encode())
    check(lambda: read_sample_ids(file), outcome)


MAX_SAMPLES = {
    "all": (None, 8),
    "some": (3, 3),
    "as many as there are": (8, 8),
    "more than there are": (100, 8),
    "a NumPy integer": (np.int64(3), 3),
    "none": (0, Refused("max_samples=0, which is no count. Pass an integer from 1.")),
    "fewer than none": (-1, Refused("max_samples=-1, which is no count")),
    "a fraction": (0.5, Refused("max_samples=0.5, which is no count")),
    "a whole float": (3.0, Refused("max_samples=3.0, which is no count")),
    "a text": ("3", Refused("max_samples='3', which is no count")),
    "true": (True, Refused("max_samples=True, which is no count")),
    "infinity": (float("inf"), Refused("max_samples=inf, which is no count")),
}


@outcomes(MAX_SAMPLES)
def test_numbers_of_samples(given, outcome):
    check(lambda: len(sample_ids(8, given, seed=0)), outcome)


SHOTS = {
    "one": (1, 4),
    "as many as there are": (2, 8),
    "more than there are": (3, Refused("shots=3, but 4 of the 4 classes have fewer images")),
    "none": (0, Refused("shots=0, which leaves no image of any class")),
    "fewer than none": (-1, Refused("shots=-1, which leaves no image")),
    "a fraction": (1.5, Refused("shots=1.5, which leaves no image")),
    "a text": ("2", Refused("shots='2', which leaves no image")),
    "true": (True, Refused("shots=True, which leaves no image")),
    "nothing": (None, Refused("shots=None, which leaves no image")),
    "NaN": (float("nan"), Refused("shots=nan, which leaves no image")),
}


@outcomes(SHOTS)
def test_shots(given, outcome):
    examples = training_examples(make_images(8), make_processor())
    check(lambda: len(few_shot(examples, given)), outcome)


FLAGS = {
    "shots": ("--shots 4", (4, 0, None)),
    "a cache": ("--cache_images 16", (None, 16, None)),
    "a resize": ("--resize 256", (None, 0, 256)),
    "no shots": ("--shots 0", Refused("shots=0, which is no count. Pass an integer from 1.")),
    "fewer shots than none": ("--shots -4", Refused("shots=-4, which is no count")),
    "half a shot": ("--shots 0.5", Refused("invalid int value: '0.5'")),
    "a cache of less than nothing": (
        "--cache_images -1",
        Refused("cache_images=-1, which is no count"),
    ),
    "a cache in words": ("--cache_images 1GB", Refused("invalid int value: '1GB'")),
    "no resize": ("--resize 0", Refused("resize=0, which is no count")),
    "a resize of two edges": ("--resize 256,256", Refused("invalid int value")),
    "no evaluated image": ("--eval_max_samples 0", Refused("eval_max_samples=0, which is no count")),
    "no image at once": ("--per_device_eval_batch_size 0", Refused("per_device_eval_batch_size=0, which is no count")),
}


@outcomes(FLAGS)
def test_numbers_of_a_command_line(given, outcome, tmp_path):
    def numbers():
        _, data_args, _ = parse(["--dataset_name", "x", "--output_dir", str(tmp_path), *given.split()])
        return data_args.shots, data_args.cache_images, data_args.resize

    check(numbers, outcome)


RESIZES = {
    "the processor's own": (None, (16, 16)),
    "its crop": (16, (16, 16)),
    "more": (18, (16, 16)),
    "a NumPy integer": (np.int64(18), (16, 16)),
    "less than its crop": (15, Refused("resize=15, less than the processor's crop of 16. Pass 16 or more.")),
    "nothing": (0, Refused("resize=0, which is no count")),
    "negative": (-18, Refused("resize=-18, which is no count")),
    "a fraction": (18.5, Refused("resize=18.5, which is no count")),
    "a text": ("18", Refused("resize='18', which is no count")),
    "two edges": ((18, 18), Refused("resize=(18, 18), which is no count")),
    "true": (True, Refused("resize=True, which is no count")),
}


@outcomes(RESIZES)
def test_resizes_of_training_and_evaluation(given, outcome):
    def sizes(kind):
        data = kind(make_images(4), make_processor(), resize=given)
        (pixels,) = [value for value in data[0].values() if isinstance(value, torch.Tensor)]
        return tuple(pixels.shape[1:])

    check(lambda: sizes(training_examples), outcome)
    check(lambda: sizes(ZeroShotDataset), outcome)


IMAGE_SIZES = {
    "its own": (16, 16),
    "larger": (24, 24),
    "smaller": (8, 8),
    "one patch": (4, 4),
    "an odd one": (17, Refused("image_size=17, no multiple of the patch size. Pass one of 4.")),
    "even, and no multiple of the patch": (18, Refused("no multiple of the patch size")),
    "less than a patch": (2, Refused("no multiple of the patch size")),
    "nothing": (0, Refused("image_size=0, which is no count")),
    "negative": (-16, Refused("image_size=-16, which is no count")),
    "a fraction": (16.0, Refused("image_size=16.0, which is no count")),
    "a text": ("24", Refused("image_size='24', which is no count")),
    "two edges": ([24, 24], Refused("image_size=[24, 24], which is no count")),
}


@outcomes(IMAGE_SIZES)
def test_image_sizes(given, outcome):
    def sizes():
        model, processor = at_resolution(make_model(), make_processor(), given)
        return model.config.vision_config.image_size, processor.image_processor.crop_size["height"]

    check(sizes, (outcome, outcome) if isinstance(outcome, int) else outcome)


@pytest.mark.parametrize("size", [0, -1, 2.0, "2"])
def test_a_cache_of_no_size_is_refused(size):
    with pytest.raises(ValueError, match=f"max_bytes={size!r}, which keeps nothing"):
        training_examples(make_images(4), make_processor()).cached(size)


def test_rows_of_a_file_are_those_that_are_evaluated(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"own": [6, 1]}))
    data = ZeroShotDataset(
        make_images(8), make_processor(), name="own", sample_ids=read_sample_ids(tmp_path / "rows.json")["own"]
    )
    assert [row for row, _ in data.rows()] == data.sample_ids == [6, 1]


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True, None])
def test_a_batch_of_no_size_is_refused_before_anything_is_computed(size):
    data = ZeroShotDataset(make_images(4), make_processor(), name="own")
    with pytest.raises(ValueError, match=f"batch_size={size!r}, which is no count. Pass an integer from 1."):
        evaluate_robustness(make_model(), make_processor(), [data], ["fgsm,eps=1/255"], batch_size=size)
    with pytest.raises(ValueError, match=f"batch_size={size!r}, which is no count. Pass an integer from 1."):
        NearestClassMean(data, batch_size=size)


@pytest.mark.parametrize(
    "flag", ["--max_samples 0", "--max_samples -3", "--batch_size 0", "--limit 0", "--image_size 0"]
)
def test_numbers_of_an_evaluation_are_refused_before_a_model_is_loaded(flag):
    name, number = flag.split()
    with pytest.raises(SystemExit, match=f"^error: You passed {name}={number}, which is no count. Pass an integer"):
        evaluate.main(["--model", "nowhere", name, number])
