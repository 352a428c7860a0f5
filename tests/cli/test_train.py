"""The main job as a user runs it: one command on the embedded default, and what it leaves behind."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from support.families import image_processor, make
from support.paths import EMOJI, ROOT
from support.tiny import make_images
from transformers import AutoImageProcessor, AutoProcessor, CLIPModel, Dinov2Model, pipeline

from hf_pmgaft import load_model
from hf_pmgaft.cli import evaluate, train
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.evaluation.report import RobustnessReport

DATA = EMOJI / "data"
QUICK = "--max_steps 4 --eval_max_samples 12 --eval_num_steps 3 --per_device_train_batch_size 16".split()


def run(*arguments, cwd) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hf_pmgaft.cli", "train", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run(*QUICK, "--logging_steps", "1", cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "outputs" / "clip-pmgaft-emoji", done.stdout


def test_no_arguments_give_a_table_of_every_set_before_and_after(demo):
    output_dir, printed = demo
    before = RobustnessReport.load(output_dir / "robustness_before.json")
    after = RobustnessReport.load(output_dir / "robustness.json")
    assert before.protocol_hash == after.protocol_hash
    assert [result.num_samples for result in after.sets] == [12] * 8
    for old, new in zip(before.sets, after.sets, strict=True):
        (line,) = [line for line in printed.splitlines() if line.split("*")[0].split()[:1] == [old.name]][:1]
        numbers = [float(word) for word in line.replace("*", " ").split()[-4:]]
        values = (old.clean_accuracy, new.clean_accuracy, old.robust_accuracy, new.robust_accuracy)
        assert numbers == [round(100 * value, 1) for value in values]
    assert "mean without animals" in printed and "PGD-3 margin linf 4/255" in printed


def test_checkpoint_is_a_plain_clip_that_gives_the_reported_accuracy(demo):
    output_dir, _ = demo
    model, info = CLIPModel.from_pretrained(output_dir, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(output_dir)
    after = RobustnessReport.load(output_dir / "robustness.json")
    data = load_images(str(DATA), "food", "test")
    sets = [ZeroShotDataset(data, processor, None, "an emoji of {}", name="food")]
    again = evaluate_robustness(
        model, processor, sets, after.protocol["attacks"], max_samples=12, seed=after.protocol["seed"], progress=False
    )
    (food,) = [result for result in after.sets if result.name == "food"]
    assert again.sets[0].verdicts == food.verdicts


def test_the_seed_that_the_card_names_repeats_its_verdicts(demo, tmp_path):
    output_dir, _ = demo
    (seed,) = re.findall(r"with `--seed (\d+)`", (output_dir / "README.md").read_text())
    food = ["--eval_sets", f"{DATA}:food@test", "--prompt_template", "an emoji of {}", "--max_samples", "12"]
    again = ["--model", str(output_dir), "--num_steps", "3", *food, "--seed", seed]
    evaluate.main([*again, "--output_file", str(tmp_path / "again.json")])

    first = RobustnessReport.load(output_dir / "robustness.json")
    second = RobustnessReport.load(tmp_path / "again.json")
    (result,) = second.sets
    assert result in first.sets and second.protocol["sets"]["food"] == first.protocol["sets"]["food"]
    apart = {**first.protocol, "sets": second.protocol["sets"]}
    assert second.protocol == apart


def test_pipeline_serves_the_checkpoint(demo):
    output_dir, _ = demo
    classify = pipeline("zero-shot-image-classification", model=str(output_dir))
    image = load_images(str(DATA), "food", "test")[0]["image"]
    answer = classify(image, candidate_labels=["grapes", "hamburger"], hypothesis_template="an emoji of {}")
    assert {row["label"] for row in answer} == {"grapes", "hamburger"}
    assert sum(row["score"] for row in answer) == pytest.approx(1.0, abs=1e-4)


def test_card_curves_gallery_and_configuration_are_there(demo):
    output_dir, _ = demo
    for picture in ("training_curves.png", "robustness.png", "gallery.png"):
        assert min(Image.open(output_dir / picture).size) > 200
    card = (output_dir / "README.md").read_text()
    after = RobustnessReport.load(output_dir / "robustness.json")
    assert after.protocol_hash in card and "4/255" in card and str(output_dir) not in card
    config = json.loads((output_dir / "training_config.json").read_text())
    assert config["eps"] == "4/255" and not any(
        "token" in key and "num" not in key for key in config if key.endswith("_token")
    )
    assert not list(output_dir.rglob("*.bin"))
    assert all(
        math.isfinite(value.abs().sum()) for value in CLIPModel.from_pretrained(output_dir).state_dict().values()
    )


def test_lora_run_leaves_an_adapter_and_a_merged_plain_clip(tmp_path):
    sets = ["--eval_sets", f"{DATA}:activities", "--retrieval_sets", f"{DATA}:activities"]
    flags = [*sets, "--retrieval_captions", "label,tags", "--output_dir", "lora"]
    done = run(*QUICK, "--lora_r", "4", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("robustness_before", "robustness"):
        first, *recalls = RobustnessReport.load(tmp_path / "lora" / f"{name}.json").sets
        assert first.name == "activities" and [r.name for r in recalls][::5] == [
            *("activities captions I2T R@1", "activities captions T2I R@10")
        ]
    assert "| activities captions I2T R@1 | 12 |" in (tmp_path / "lora" / "README.md").read_text()
    assert (tmp_path / "lora" / "adapter_model.safetensors").exists()
    merged, info = CLIPModel.from_pretrained(tmp_path / "lora" / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    base = CLIPModel.from_pretrained(EMOJI / "model")
    changed = {n for n, v in merged.state_dict().items() if not torch.equal(v, base.state_dict()[n])}
    assert changed and all(name.startswith("vision_model.") for name in changed)


def test_an_encoder_without_text_is_tuned_on_images_without_labels_and_evaluated_by_a_head(tmp_path):
    make("Dinov2Model").save_pretrained(tmp_path / "base")
    image_processor().save_pretrained(tmp_path / "base")
    make_images(8).remove_columns("label").to_parquet(tmp_path / "train.parquet")
    for seed, name in enumerate(("test", "support")):
        make_images(8, seed).to_parquet(tmp_path / f"{name}.parquet")
    flags = ["--model_name_or_path", "base", "--dataset_name", "train.parquet", "--objective", "fare", "--max_steps"]
    flags += ["1", "--eval_num_steps", "1", "--per_device_train_batch_size", "4", "--image_mean", "0.5", "0.5", "0.5"]
    flags += ["--eval_sets", "test.parquet@train", "--head", "nearest_class_mean", "--use_cpu", "--output_dir", "run"]

    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    refused = run(*flags, cwd=tmp_path)
    flags += ["--support_sets", "support.parquet@train", "--report_to", "tensorboard"]
    done = run(*flags, cwd=tmp_path)

    assert "error: You passed --head nearest_class_mean with 0 --support_sets for 1 evaluation sets" in refused.stderr
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Accuracy by NearestClassMean in %" in done.stdout
    reports = [
        RobustnessReport.load(tmp_path / "run" / f"{name}.json") for name in ("robustness_before", "robustness")
    ]
    assert {report.protocol["head"]["name"] for report in reports} == {"NearestClassMean"}
    assert (tmp_path / "run" / "gallery.png").is_file()
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent)).Reload()
    assert "eval/samples" in events.Tags()["images"] and "eval/mean_robust_accuracy" in events.Tags()["scalars"]
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "run").image_mean) == [0.5, 0.5, 0.5]
    assert type(load_model(str(tmp_path / "run"))) is Dinov2Model
    card = (tmp_path / "run" / "README.md").read_text()
    assert "a plain `Dinov2Model`" in card and "Accuracy by NearestClassMean" in card and "ero-shot" not in card


def test_a_wrong_argument_ends_in_one_clear_message_before_anything_is_loaded(tmp_path):
    done = run("--eps", "4", cwd=tmp_path)
    assert done.returncode != 0
    assert "4/255" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_evaluation_sets_of_one_name_are_refused(tmp_path):
    sets = [f"{DATA}:food@test", f"{DATA}:food@validation"]
    done = run("--recipe", "emoji", "--eval_sets", *sets, cwd=tmp_path)
    assert done.returncode == 1 and "several eval_sets of the name food" in done.stderr


def test_the_script_ends_with_the_message_and_no_traceback(tmp_path, capsys):
    for flags, message in (
        (["--eps", "4"], "write 4/255"),
        (["--epss", "1"], "did you mean eps"),
        (["--output_dir", str(tmp_path), "--eval_sets", "/nowhere.parquet:x@y"], "nowhere"),
        (["--output_dir", str(tmp_path), "--resume_from_checkpoint", "true"], "no complete checkpoint to resume from"),
        (["--model_name_or_path", "m", "--output_dir", str(tmp_path), "--lora_target_modules"], "at least one"),
    ):
        with pytest.raises(SystemExit) as done:
            train.main([*flags, "--use_cpu"])
        assert message in str(done.value.code), flags
    assert "Traceback" not in capsys.readouterr().err
