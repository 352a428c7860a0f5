"""Push and pull by the real client, against a Hub on loopback: what goes up, what comes back, what may fail."""

import io
import json
import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from peft import LoraConfig, PeftModel
from PIL import Image
from safetensors.torch import load
from support.hub_runs import IMAGES, assert_equal, finish, logits, run_of
from support.hub_server import READER, TOKEN
from support.tiny import CLASS_NAMES, make_images, make_model
from support.trainers import LORA
from transformers import AutoProcessor, CLIPModel, CLIPVisionModel, TrainerCallback, pipeline

import hf_pmgaft.hub.upload
from hf_pmgaft import evaluate_robustness, load_model
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.training import checkpoints

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle")


def test_a_pushed_run_comes_back_by_its_name_with_the_same_logits_and_the_identical_report(hub, tmp_path, processor):
    trainer = run_of(tmp_path)
    folder = finish(trainer)
    before, expected = trainer.last_report, logits(trainer.model, processor)
    shutil.rmtree(folder)
    del trainer

    model, info = CLIPModel.from_pretrained("user/clip", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    pulled = AutoProcessor.from_pretrained("user/clip")
    assert_equal(logits(model, pulled), expected)
    sets = [ZeroShotDataset(make_images(4), pulled, None, "a photo of the {}", name="set")]
    options = {"batch_size": 8, "seed": before.protocol["seed"], "progress": False}
    after = evaluate_robustness(load_model("user/clip"), pulled, sets, before.protocol["attacks"], **options)
    assert after.protocol_hash == before.protocol_hash
    assert before.provenance.keys() == {"training"} and not after.provenance  # which the weights do not carry
    assert replace(after, provenance=before.provenance).to_dict() == before.to_dict()
    assert json.loads(hub.repos["user/clip"].files["robustness.json"])["protocol_hash"] == before.protocol_hash

    pixels = torch.rand(2, 3, 16, 16)
    vision = CLIPVisionModel.from_pretrained("user/clip")
    hidden = model.vision_model(pixel_values=pixels).last_hidden_state
    assert_equal(vision(pixel_values=pixels).last_hidden_state, hidden)
    classify = pipeline("zero-shot-image-classification", model="user/clip")
    image = make_images(1)[0]["image"]
    scores = {row["label"]: row["score"] for row in classify(image, CLASS_NAMES, hypothesis_template="{}")}
    assert_equal(torch.tensor([scores[name] for name in CLASS_NAMES]), expected[0].softmax(0))


def test_a_trainer_pushes_its_report_pictures_and_curves_without_being_told(hub, tmp_path):
    trainer = run_of(tmp_path)
    before = trainer.evaluate_robustness()
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    files = hub.repos["user/clip"].files
    assert json.loads(files["robustness_before.json"]) == json.loads(json.dumps(before.to_dict()))
    assert json.loads(files["robustness.json"]) == json.loads(json.dumps(trainer.last_report.to_dict()))
    for name in IMAGES:
        assert min(Image.open(io.BytesIO(files[name])).size) > 100 and f"({name})" in files["README.md"].decode()


def test_a_push_holds_what_serves_and_no_pickle_no_token_and_nothing_else_of_the_folder(hub, tmp_path):
    finish(run_of(tmp_path))
    assert set(hub.repos["user/clip"].files) == {
        *(
            ".gitattributes",
            "README.md",
            "config.json",
            "model.safetensors",
            "robustness.json",
            "training_config.json",
        ),
        *("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
        *IMAGES,
    }
    card = hub.repos["user/clip"].files["README.md"].decode()
    assert "PGD-3 margin" in card and 'from_pretrained("user/clip")' in card
    assert not [content for content in [*hub.bodies, *hub.storage.values()] if TOKEN.encode() in content]


@pytest.mark.parametrize(
    ("strategy", "folders"),
    [
        ("end", []),
        ("every_save", []),
        ("checkpoint", ["last-checkpoint"]),
        ("all_checkpoints", ["checkpoint-1", "checkpoint-2"]),
    ],
)
def test_hub_strategies_upload_models_while_training_goes_on_without_pickles(hub, tmp_path, strategy, folders):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    trainer = run_of(tmp_path, hub_strategy=strategy, hub_always_push=True, **options)
    trainer.train()
    repo = hub.repos["user/clip"]
    pushed = [f"Training in progress, step {step}" for step in (1, 2)] if strategy != "end" else []
    assert list(dict.fromkeys(repo.messages[1:])) == pushed
    if pushed:
        assert_equal(weights(repo.files["model.safetensors"]), trainer.model.visual_projection.weight)
        assert repo.commits[1]["model.safetensors"] != repo.files["model.safetensors"]
    trainer.push_to_hub()
    files = set(repo.files)
    assert {path.split("/")[0] for path in files if "/" in path} == set(folders)
    for folder in folders:
        assert {f"{folder}/{name}" for name in ("model.safetensors", "config.json", "trainer_state.json")} <= files
    everything = {path for commit in repo.commits for path in commit}
    assert not [path for path in everything if path.endswith(PICKLES)]
    assert (tmp_path / "run" / "checkpoint-2" / "optimizer.pt").is_file()  # there were some to upload


def test_a_checkpoint_is_not_rotated_away_while_it_is_uploaded(hub, tmp_path, monkeypatch, caplog):
    later, upload = threading.Event(), hf_pmgaft.hub.upload.upload

    def slow(folder, *args, **options):
        assert later.wait(20)
        return upload(folder, *args, **options)

    class Release(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 3:
                later.set()

    monkeypatch.setattr("hf_pmgaft.hub.upload.upload", slow)
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    run_of(tmp_path, hub_strategy="checkpoint", callbacks=[Release()], **options).train()
    assert "last-checkpoint/model.safetensors" in hub.repos["user/clip"].files
    assert hub.repos["user/clip"].messages[1:] == 2 * ["Training in progress, step 1"]
    assert "failed" not in caplog.text


def test_a_checkpoint_of_the_hub_starts_a_new_run_and_is_refused_for_resuming(hub, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1}
    run_of(tmp_path, hub_strategy="checkpoint", **options).train()
    pulled = Path(snapshot_download("user/clip", allow_patterns="last-checkpoint/*")) / "last-checkpoint"
    load_model(str(pulled))
    assert "optimizer.pt is missing" in checkpoints.defect(pulled)
    with pytest.raises(ValueError, match="cannot be resumed from: optimizer.pt is missing"):
        run_of(tmp_path, push_to_hub=False).train(resume_from_checkpoint=str(pulled))


def test_a_lora_run_pushes_an_adapter_that_peft_and_the_package_load(hub, tmp_path, clip_files, processor):
    hub.put("user/base", clip_files)
    trainer = run_of(tmp_path, model=load_model("user/base"), peft_config=LoraConfig(**LORA))
    trainer.train()
    trainer.save_standalone()
    trainer.push_to_hub()
    files = hub.repos["user/clip"].files
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(files)
    assert "model.safetensors" not in files and not [path for path in files if "/" in path]
    expected = logits(trainer.model, processor)
    base = CLIPModel.from_pretrained("user/base")
    assert (logits(base, processor) - expected).abs().max() > 1e-3
    for pulled in (PeftModel.from_pretrained(base, "user/clip"), load_model("user/clip")):
        assert_equal(logits(pulled, processor), expected)


@pytest.mark.parametrize(
    ("tuning", "options"), [("text_context", {"num_tokens": 2}), ("deep_prompts", {"num_tokens": 2, "depth": 1})]
)
def test_a_prompt_run_pushes_its_small_folder_that_the_package_loads(hub, tmp_path, clip_files, tuning, options):
    hub.put("user/base", clip_files)
    args = {"tuning": tuning, "tuning_kwargs": options, "objective": "tecoa"}
    trainer = run_of(tmp_path, model=load_model("user/base"), **args)
    trainer.train()
    trainer.push_to_hub()
    files = hub.repos["user/clip"].files
    assert {"tuning.json", "tuning.safetensors"} <= set(files) and "model.safetensors" not in files
    before = trainer.evaluate_robustness()
    pulled = AutoProcessor.from_pretrained("user/clip")
    sets = [ZeroShotDataset(make_images(4), pulled, None, "a photo of the {}", name="set")]
    options = {"batch_size": 8, "seed": before.protocol["seed"], "progress": False}
    after = evaluate_robustness(load_model("user/clip"), pulled, sets, before.protocol["attacks"], **options)
    assert [vars(result) for result in after.sets] == [vars(result) for result in before.sets]
    with pytest.raises(ValueError, match="cannot be folded into a plain CLIPModel"):
        trainer.push_to_hub(merged=True)


def test_the_merged_model_is_pushed_on_request_in_place_of_the_adapter(hub, tmp_path, clip_files, processor):
    hub.put("user/base", clip_files)
    trainer = run_of(tmp_path, model=load_model("user/base"), peft_config=LoraConfig(**LORA))
    finish(trainer)
    assert "adapter_model.safetensors" in hub.repos["user/clip"].files
    trainer.push_to_hub(merged=True)
    files = hub.repos["user/clip"].files
    assert not [path for path in files if path.startswith("adapter") or "/" in path]
    assert {"model.safetensors", "tokenizer.json", "robustness.json", *IMAGES} <= set(files)
    assert "a plain `CLIPModel`" in files["README.md"].decode()
    model, info = CLIPModel.from_pretrained("user/clip", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_equal(logits(model, processor), logits(trainer.model, processor))


def test_an_adapter_on_a_base_of_this_machine_is_pushed_with_a_warning(hub, tmp_path, caplog):
    make_model().save_pretrained(tmp_path / "base")
    trainer = run_of(tmp_path, model=load_model(str(tmp_path / "base")), peft_config=LoraConfig(**LORA))
    trainer.push_to_hub()
    assert "loads beside its base model, a folder of this machine" in caplog.text and "--push_merged" in caplog.text


def test_a_private_repository_needs_its_token(hub, tmp_path, monkeypatch):
    run_of(tmp_path, hub_private_repo=True).push_to_hub()
    assert hub.repos["user/clip"].private
    load_model("user/clip")
    shutil.rmtree(tmp_path / "cache")
    for stranger in (READER, "hf_nobody", None):
        monkeypatch.setenv("HF_TOKEN", stranger) if stranger else monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(OSError, match="user/clip"):
            load_model("user/clip")


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_expired", "user/clip", "the Hub does not take the token.*hf auth login"),
        (READER, "reader/clip", "no right to write there.*for reading"),
        (READER, "clip", "no right to write there"),
        (TOKEN, "reader/clip", "the name is another user's.*hub_model_id='YOUR_NAME"),
        (TOKEN, "reader/taken", "the name is another user's"),
        (TOKEN, "../x", "'../x', but.*YOUR_NAME"),
        (TOKEN, "a/b/c", "'a/b/c', but.*YOUR_NAME"),
        (TOKEN, "user/clip\n", "but.*YOUR_NAME"),
    ],
)
def test_a_push_that_would_fail_is_found_before_training(hub, tmp_path, token, name, message):
    hub.put("reader/taken", {})
    with pytest.raises(ValueError, match=f"(?s){message}") as raised:
        run_of(tmp_path, hub_token=token, hub_model_id=name)
    assert "Nothing was trained" in str(raised.value) and token not in str(raised.value)
    assert set(hub.repos) == {"reader/taken"}


def test_a_hub_that_cannot_be_reached_is_found_before_training(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="(?s)the Hub cannot be reached.*offline mode.*leave push_to_hub out"):
        run_of(tmp_path)


def test_an_upload_that_fails_during_training_is_told_and_made_good_by_the_next(hub, tmp_path, caplog, impatient):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer = run_of(tmp_path, hub_strategy="every_save", **options)
    hub.fail("POST", "/commit/", 403)
    trainer.train()
    assert trainer.state.global_step == 2
    assert "An upload during training failed" in caplog.text and "403" in caplog.text
    assert hub.repos["user/clip"].messages[1:] == ["Training in progress, step 2"]


def test_a_token_reaches_no_log_no_file_no_exception_and_no_upload(
    hub, tmp_path, monkeypatch, caplog, capfd, impatient
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", READER)  # not the one that is passed
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "hub_strategy": "all_checkpoints"}
    trainer = run_of(tmp_path, hub_token=TOKEN, hub_always_push=True, peft_config=LoraConfig(**LORA), **options)
    print(trainer.args)
    trainer.train()
    trainer.evaluate_robustness().save(tmp_path / "run" / "robustness.json")
    trainer.save_standalone()
    hub.fail("PUT", "/storage/", 500, times=1000)
    hub.fail("POST", "/commit/", None, times=1000)
    with pytest.raises(OSError) as raised:
        trainer.push_to_hub(merged=True)
    hub.faults.clear()
    trainer.push_to_hub(merged=True)

    errors, error = [], raised.value
    while error is not None:
        errors.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    printed = capfd.readouterr()
    texts = [record.getMessage() for record in caplog.records] + [printed.out, printed.err, *errors]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    received = [*hub.bodies, *hub.storage.values()]
    assert len(texts) > 10 and len(written) > 20 and len(received) > 20
    for secret in (TOKEN, READER):
        assert not [text for text in texts if secret in text]
        assert not [content for content in written + received if secret.encode() in content]


def weights(content: bytes) -> torch.Tensor:
    return load(content)["visual_projection.weight"]
