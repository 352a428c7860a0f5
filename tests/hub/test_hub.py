"""Push and pull by the real client, against a Hub on loopback: what goes up, what comes back, what may fail."""

import hashlib
import importlib
import io
import json
import logging
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from peft import LoraConfig, PeftModel
from PIL import Image
from safetensors.torch import load, save
from support.hub_server import READER, TOKEN, HubServer
from support.paths import ROOT
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor
from support.trainers import LORA, make_trainer
from transformers import AutoProcessor, CLIPModel, CLIPVisionModel, TrainerCallback, pipeline

import hf_pmgaft.hub.upload
from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, evaluate_robustness, load_model
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.training import checkpoints

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle")
IMAGES = ["gallery.png", "training_curves.png"]


@pytest.fixture(scope="module")
def plain() -> dict[str, bytes]:
    """The files of a small CLIP with its processor."""
    return files_of(make_model(), make_processor())


@pytest.fixture
def impatient(monkeypatch):
    """Waits between attempts take no time; how long they would have been."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def files_of(*parts) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def run_of(tmp_path, **options):
    """A trainer of one step that pushes to user/clip."""
    options = {"max_steps": 1, "push_to_hub": True, "hub_model_id": "user/clip", **options}
    return make_trainer(tmp_path / "run", eval_dataset=options.pop("eval_dataset", make_images(4)), **options)


def finish(trainer, **push) -> Path:
    """Trains and pushes with what must not leave the machine beside the model."""
    folder = Path(trainer.args.output_dir)
    for name in ("training_args.bin", "optimizer.pt", ".env", "notes.log"):
        (folder / name).write_text(f"HF_TOKEN={TOKEN}")
    (folder / "wandb").mkdir(exist_ok=True)
    (folder / "wandb" / "settings.json").write_text(f'{{"token": "{TOKEN}"}}')
    trainer.train()
    trainer.evaluate_robustness()
    trainer.push_to_hub(**push)
    return folder


def logits(model, processor) -> torch.Tensor:
    batch = processor(text=CLASS_NAMES, images=list(make_images(4)["image"]), return_tensors="pt", padding=True)
    with torch.no_grad():
        return model.eval()(**batch).logits_per_image


def examples(name: str):
    return importlib.import_module(name)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_hub_of_these_tests_lets_nothing_pass(hub):
    content = b"weights"
    entry = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    hub.put("user/clip", {}, private=True)
    body = {"operation": "upload", "transfers": ["basic"], "objects": [entry], "hash_algo": "sha256"}

    def ask(method, url, data, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    batch = f"{hub.url}/user/clip.git/info/lfs/objects/batch"
    assert [ask("POST", batch, json.dumps(body).encode(), token)[0] for token in (None, READER)] == [401, 403]
    assert ask("GET", f"{hub.url}/user/clip/resolve/main/config.json", None)[0] == 401
    _, answer = ask("POST", batch, json.dumps(body).encode(), TOKEN)
    address = json.loads(answer)["objects"][0]["actions"]["upload"]["href"]
    assert hub.problems == []
    assert ask("PUT", address, b"wrights")[0] == 400 and "an upload of 7 bytes that is not" in hub.problems.pop()
    assert ask("PUT", address, content + b"!")[0] == 400 and "an upload of 8 bytes" in hub.problems.pop()
    assert ask("PUT", address, content, TOKEN)[0] == 200 and "the token went to storage" in hub.problems.pop()
    assert ask("GET", f"{hub.url}/api/models", None, TOKEN)[0] == 404 and "an unknown route" in hub.problems.pop()
    line = {"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "0" * 64, "size": 7}}
    lines = json.dumps({"key": "header", "value": {"summary": ""}}) + "\n" + json.dumps(line)
    assert ask("POST", f"{hub.url}/api/models/user/clip/commit/main", lines.encode(), TOKEN)[0] == 400
    assert "x was committed but never uploaded" in hub.problems.pop()


# ---- Push and pull ----


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
    assert after.to_dict() == before.to_dict()
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


def weights(content: bytes) -> torch.Tensor:
    return load(content)["visual_projection.weight"]


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


def test_a_lora_run_pushes_an_adapter_that_peft_and_the_package_load(hub, tmp_path, plain, processor):
    hub.put("user/base", plain)
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
def test_a_prompt_run_pushes_its_small_folder_that_the_package_loads(hub, tmp_path, plain, tuning, options):
    hub.put("user/base", plain)
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


def test_the_merged_model_is_pushed_on_request_in_place_of_the_adapter(hub, tmp_path, plain, processor):
    hub.put("user/base", plain)
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


def test_an_adapter_on_a_base_of_this_machine_is_pushed_with_a_warning(hub, tmp_path, plain, caplog):
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


def test_the_script_pulls_trains_and_pushes_by_the_documented_variables(tmp_path, plain):
    with HubServer({TOKEN: ("user", "write")}) as server:
        server.put("user/base", plain, private=True)
        make_images(8).to_parquet(tmp_path / "data.parquet")
        flags = (
            "--model_name_or_path user/base --dataset_name data.parquet --eval_sets data.parquet@train --max_steps 1"
        )
        flags += " --eval_num_steps 1 --per_device_train_batch_size 4 --output_dir run --push_to_hub --use_cpu"
        flags += " --hub_model_id clip --disable_tqdm true --lora_r 2 --push_merged --report_to none"
        variables = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        variables |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "examples" / "run_pmgaft.py"), *flags.split()]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        files = server.repos["user/clip"].files
        pictures = {"gallery.png", "robustness.png", "training_curves.png"}
        reports = {"robustness.json", "robustness_before.json"}
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", *reports, *pictures} <= set(files)
        assert TOKEN not in done.stdout + done.stderr
        assert not [body for body in server.bodies if TOKEN.encode() in body]
        assert server.problems == []


# ---- Failures ----


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


@pytest.mark.parametrize("status", [None, 503])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/storage/"),
        ("POST", "/preupload/"),
        ("POST", "/commit/"),
        ("POST", "/validate-yaml"),
        ("POST", "/batch"),
    ],
)
def test_a_lost_line_or_a_server_error_is_tried_again(hub, tmp_path, impatient, method, path, status):
    trainer = run_of(tmp_path)
    hub.fail(method, path, status)
    trainer.push_to_hub()
    assert hub.faults[0].times == 0 and impatient
    load_model("user/clip")
    assert len(hub.repos["user/clip"].commits) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, tmp_path, impatient):
    trainer = run_of(tmp_path)
    lost = hub.fail("POST", "/commit/", 504, done=True)
    trainer.push_to_hub()
    assert lost.times == 0 and len(hub.repos["user/clip"].commits) == 2


@pytest.mark.parametrize(("status", "asked"), [(500, 3), (403, 1)])
def test_a_push_that_fails_for_good_keeps_the_checkpoint_and_says_how_to_push_it(
    hub, tmp_path, impatient, caplog, status, asked
):
    trainer = run_of(tmp_path)
    hub.fail("POST", "/commit/", status, times=1000)
    with pytest.raises(OSError, match="(?s)push to 'user/clip' failed.*Nothing is lost") as raised:
        trainer.push_to_hub()
    assert 1000 - hub.faults[0].times == asked
    load_model(str(tmp_path / "run"))

    hub.faults.clear()
    command = shlex.split(str(raised.value).splitlines()[-1])
    assert command[:3] == ["hf", "upload", "user/clip"]
    variables = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    variables |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "run" / "optimizer.pt").write_text("a pickle")
    command[0] = str(Path(sys.executable).with_name("hf"))
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "optimizer.pt" not in hub.repos["user/clip"].files
    load_model("user/clip")


def test_the_script_ends_with_an_error_that_names_folder_and_command(hub, tmp_path, plain, impatient):
    for name, content in plain.items():
        (tmp_path / name).write_bytes(content)
    make_images(8).to_parquet(tmp_path / "data.parquet")
    hub.fail("PUT", "/storage/", 500, times=1000)
    flags = f"--model_name_or_path {tmp_path} --dataset_name {tmp_path}/data.parquet --max_steps 1 --do_eval false"
    flags += f" --per_device_train_batch_size 4 --output_dir {tmp_path}/run --push_to_hub --hub_model_id user/clip"
    with pytest.raises(SystemExit, match=f"(?s)^error: The push to 'user/clip' failed.*{tmp_path}/run.*hf upload"):
        examples("run_pmgaft").main([*flags.split(), "--use_cpu", "--disable_tqdm", "true", "--report_to", "none"])
    load_model(str(tmp_path / "run"))


def test_an_upload_that_fails_during_training_is_told_and_made_good_by_the_next(hub, tmp_path, caplog, impatient):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer = run_of(tmp_path, hub_strategy="every_save", **options)
    hub.fail("POST", "/commit/", 403)
    trainer.train()
    assert trainer.state.global_step == 2
    assert "An upload during training failed" in caplog.text and "403" in caplog.text
    assert hub.repos["user/clip"].messages[1:] == ["Training in progress, step 2"]


# ---- Security ----


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_is_read_as_tensors_alone_or_refused(hub, tmp_path, plain, processor):
    config = {name: content for name, content in plain.items() if name != "model.safetensors"}
    torch.save(make_model().state_dict(), tmp_path / "tensors")
    hub.put("user/tensors", {**config, "pytorch_model.bin": (tmp_path / "tensors").read_bytes()})
    assert_equal(logits(load_model("user/tensors"), processor), logits(make_model(), processor))

    torch.save({"weight": Evil(tmp_path / "ran")}, tmp_path / "evil")
    hub.put("user/evil", {**config, "pytorch_model.bin": (tmp_path / "evil").read_bytes()})
    hub.put("user/raw", {**config, "pytorch_model.bin": pickle.dumps(Evil(tmp_path / "ran"), protocol=2)})
    hub.put("user/base", plain)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "user/base", "r": 2, "target_modules": ["q_proj"]}
    adapter_files = {"adapter_config.json": json.dumps(adapter).encode()}
    hub.put("user/adapter", {**adapter_files, "adapter_model.bin": (tmp_path / "evil").read_bytes()})
    for name in ("user/evil", "user/raw", "user/adapter"):
        with pytest.raises(OSError, match=f"weights of '{name}' are a pickle of more than tensors.*safetensors"):
            load_model(name)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


def test_no_code_of_a_repository_is_run_or_asked_for(hub, tmp_path, plain, processor, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    config = json.loads(plain["config.json"])
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    hub.put("user/known", {**plain, "config.json": json.dumps(config).encode(), "evil.py": code})
    assert_equal(logits(load_model("user/known"), processor), logits(make_model(), processor))
    config["model_type"] = "evil"
    hub.put("user/unknown", {**plain, "config.json": json.dumps(config).encode(), "evil.py": code})
    with pytest.raises(ValueError, match="contains custom code"):
        load_model("user/unknown")
    settings = json.dumps({"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Evil"}}).encode()
    hub.put("user/processor", {**plain, "processor_config.json": settings, "evil.py": code})
    with pytest.raises(ValueError, match="custom code"):
        PMGAFTTrainer("user/processor", PMGAFTConfig(output_dir=str(tmp_path / "run"), use_cpu=True))
    assert not asked and not (tmp_path / "ran").exists()


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


def test_a_token_that_no_header_can_carry_is_refused_unseen(tmp_path):
    with pytest.raises(ValueError, match="hub_token with spaces, line ends") as raised:
        PMGAFTConfig(output_dir=str(tmp_path), push_to_hub=True, hub_token=f"{TOKEN}\n", use_cpu=True)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("name", ["../x", "a/b/c", "user/clip\n", "user/..", "-x/y", ""])
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, ValueError), match="cannot be a Hub id|no such file|empty model name"):
        load_model(name)
    assert hub.requests == []


@pytest.mark.parametrize("path", ["../../evil.safetensors", "/evil.safetensors", "a/../../../../evil.safetensors"])
def test_a_path_that_leads_out_of_the_cache_is_refused(hub, tmp_path, plain, path):
    outside = {p for p in tmp_path.rglob("*") if (tmp_path / "cache") not in p.parents}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: path for name in make_model().state_dict()}}
    content = {name: value for name, value in plain.items() if name != "model.safetensors"}
    content |= {"model.safetensors.index.json": json.dumps(index).encode(), path: save({"x": torch.zeros(1)})}
    hub.put("user/evil", content)
    for pull in (load_model, snapshot_download):
        with pytest.raises((OSError, ValueError), match="Invalid"):
            pull("user/evil")
    new = {p for p in tmp_path.rglob("*") if (tmp_path / "cache") not in p.parents} - outside
    assert new <= {tmp_path / "cache"}
    assert not [p for p in tmp_path.rglob("evil*")]


@pytest.mark.parametrize(
    "content",
    [
        (10**15).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"xx",
        b"",
        None,
    ],
    ids=["header too large", "header overflows", "no JSON", "empty", "cut off"],
)
def test_a_damaged_safetensors_file_is_refused_by_name(hub, plain, content):
    whole = plain["model.safetensors"]
    hub.put("user/damaged", {**plain, "model.safetensors": whole[: len(whole) // 2] if content is None else content})
    with pytest.raises(OSError, match="weights of 'user/damaged' are no whole safetensors file"):
        load_model("user/damaged")
