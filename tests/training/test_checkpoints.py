"""Interrupted runs go on as if nothing had happened or say why not; broken weights and secrets are never saved."""

import contextlib
import errno
import json
import os
import shutil
import signal
import zipfile
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.disk import full_disk
from support.paths import ROOT
from support.tiny import make_images, make_model, make_processor
from support.trainers import LORA, make_trainer
from transformers import CLIPModel, TrainerCallback, TrainerState

from hf_pmgaft import PMGAFTTrainer
from hf_pmgaft.training import checkpoints

FILES = [
    "config.json",
    "model.safetensors",
    "optimizer.pt",
    "processor_config.json",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training_config.json",
    checkpoints.MANIFEST,
]
# 32 images: 4 steps an epoch, or 3 (of 3, 3 and 2 micro-batches) with accumulation.
KINDS = {
    "full": {},
    "lora": {"peft_config": LoraConfig(**LORA, lora_dropout=0.2)},
    "augmentation": {"augmentation": 1.0},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
}


class At(TrainerCallback):
    """Does something at one event of one step."""

    def __init__(self, event, step, act):
        setattr(self, event, lambda args, state, control, **kwargs: state.global_step == step and act(kwargs) or None)


def stop(_):
    raise KeyboardInterrupt


def poison(kwargs, gradient=False):
    weight = kwargs["model"].visual_projection.weight
    (weight.grad if gradient else weight.data)[0, 0] = float("nan")


def start(folder, **options):
    return make_trainer(folder, **{"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by kind, each made once."""
    made = {}

    def run(kind="full"):
        if kind not in made:
            made[kind] = start(tmp_path_factory.mktemp(kind), **KINDS[kind])
            made[kind].train()
        return made[kind]

    return run


def copy_checkpoints(run, folder, *steps):
    for step in steps:
        name = f"checkpoint-{step}"
        shutil.copytree(Path(run.args.output_dir) / name, folder / name)


def step_lines(trainer):
    return [line for line in trainer.state.log_history if "loss" in line]


def assert_same_end(trainer, reference):
    wanted = reference.model.state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    ours, theirs = (run.optimizer.state_dict()["state"] for run in (trainer, reference))
    assert ours.keys() == theirs.keys()
    for index in ours:
        for key in ours[index]:
            assert torch.equal(ours[index][key], theirs[index][key]), (index, key)
    assert trainer.lr_scheduler.state_dict() == reference.lr_scheduler.state_dict()


@pytest.mark.parametrize(("kind", "step"), [*((kind, 3) for kind in KINDS), ("full", 5), ("accumulation", 5)])
def test_interrupted_run_ends_bit_equal(whole, tmp_path, kind, step):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, **KINDS[kind], callbacks=[At("on_step_end", step, stop)]).train()
    resumed = start(tmp_path, **KINDS[kind])
    resumed.train(resume_from_checkpoint=True)
    assert resumed._initial_global_step == step - 1
    assert_same_end(resumed, whole(kind))
    assert step_lines(resumed) == step_lines(whole(kind))
    assert len({line["loss"] for line in step_lines(resumed)}) == 6


def test_checkpoint_inside_a_log_window_changes_no_weight(whole, tmp_path):
    copy_checkpoints(whole(), tmp_path, 2)
    resumed = start(tmp_path, logging_steps=3)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(resumed, whole())
    lines = {line["step"]: line for line in step_lines(resumed)}
    # The window that was cut tells of its remaining step alone, loss and terms alike.
    alone = next(line for line in step_lines(whole()) if line["step"] == 3)
    assert lines[3]["loss"] == pytest.approx(alone["loss"]) and lines[3]["clean_kl"] == pytest.approx(
        alone["clean_kl"]
    )


def test_files_of_a_checkpoint(whole):
    folder = Path(whole().args.output_dir) / "checkpoint-2"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize("file", FILES)
def test_cut_off_checkpoint_is_skipped(whole, tmp_path, caplog, file, damage):
    copy_checkpoints(whole(), tmp_path, 4, 6)
    path = tmp_path / "checkpoint-6" / file
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    resumed = start(tmp_path, save_strategy="no")
    resumed.train(resume_from_checkpoint=True)
    assert resumed._initial_global_step == 4
    assert "checkpoint-6" in caplog.text and file in caplog.text
    assert_same_end(resumed, whole())


def test_resume_without_any_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        start(tmp_path).train(resume_from_checkpoint=True)


def test_explicit_incomplete_checkpoint_is_refused_with_the_reason(whole, tmp_path):
    copy_checkpoints(whole(), tmp_path, 2)
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    trainer = start(tmp_path)
    with pytest.raises(ValueError, match="optimizer.pt is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with pytest.raises(ValueError, match="no such folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    (tmp_path / "checkpoint-2" / checkpoints.MANIFEST).unlink()
    with pytest.raises(ValueError, match="no readable complete.json"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 0


def test_a_checkpoint_of_the_model_alone_is_no_place_to_go_on_from(tmp_path):
    start(tmp_path, max_steps=2, save_only_model=True).train()
    for asked_for in (True, str(tmp_path / "checkpoint-2")):
        with pytest.raises(ValueError, match="save_only_model"):
            start(tmp_path).train(resume_from_checkpoint=asked_for)


def renamed(images):
    features = images.features.copy()
    features["label"] = datasets.ClassLabel(names=["red disc", "green disc", "blue square", "yellow image"])
    return images.cast(features)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"objective": "tecoa"}, "objective"),
        ({"objective_kwargs": {"alpha": 2.0}}, "objective_options.alpha"),
        ({"eps": "4/255"}, "attack_options.eps"),
        ({"num_steps": 3}, "attack_options.num_steps"),
        ({"step_size": "8/255"}, "attack_options.step_size"),
        ({"norm": "l2"}, "attack_options.norm"),
        ({"random_start": False}, "attack_options.random_start"),
        ({"attack": "fgsm"}, "attack"),
        ({"attack_kwargs": {"tau": 0}}, "attack_options.tau"),
        ({"attack_precision": "bf16"}, "attack_precision"),
        ({"augmentation": 0.5}, "augmentation"),
        ({"objective": "clean", "noise_sigma": 0.1}, "noise_sigma"),
        ({"tuning": "last_blocks"}, "tuning"),
        ({"peft_config": LoraConfig(**LORA)}, "adapters.default.r"),
        ({"seed": 1}, "seed"),
        ({"teacher": make_model(seed=5)}, "weights.teacher"),
        ({"model": make_model(seed=5)}, "weights.model"),
        ({"images": make_images(28)}, "train_dataset.samples"),
        ({"images": make_images(seed=1)}, "train_dataset.images"),
        ({"images": make_images().select([1, 0, *range(2, 32)])}, "train_dataset.labels"),
        ({"images": renamed(make_images())}, "class_names"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_another_run_is_refused_with_the_differing_keys(whole, options, key):
    trainer = start(whole().args.output_dir, **options)
    with pytest.raises(ValueError, match=rf"other settings[^$]*\n  {key}: "):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 0


def test_checkpoint_of_an_earlier_format_is_refused_by_the_changelog_s_entry(whole, tmp_path):
    copy_checkpoints(whole(), tmp_path, 4)
    file = tmp_path / "checkpoint-4" / "complete.json"
    manifest = json.loads(file.read_text())
    del manifest["format"]
    file.write_text(json.dumps(manifest))
    trainer = start(tmp_path)
    with pytest.raises(ValueError, match="another format .*CHANGELOG.md"):
        trainer.train(resume_from_checkpoint=True)
    assert "Format of checkpoints" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"prompt_templates": "an image of the {}"}, "prompt_templates"),
        ({"prompt_templates": "a photo of the {}", "guidance_names": ["disc", "square"]}, "guidance_names"),
    ],
)
def test_other_prompts_are_refused(whole, options, key):
    trainer = PMGAFTTrainer(
        make_model(), whole().args, train_dataset=make_images(), processing_class=make_processor(), **options
    )
    with pytest.raises(ValueError, match=rf"other settings[^$]*\n  {key}: "):
        trainer.train(resume_from_checkpoint=True)


def test_model_that_is_tuned_already_is_no_teacher(whole):
    for kind in ("full", "lora"):
        tuned = make_model()
        tuned.load_state_dict(whole("full").model.state_dict())
        with pytest.raises(ValueError, match="\n  weights.model: "):
            start(whole(kind).args.output_dir, model=tuned, **KINDS[kind]).train(resume_from_checkpoint=True)


def test_given_teacher_is_known_by_its_image_tower_and_its_text_tower(tmp_path):
    def teacher(changed=None):
        model = make_model(seed=5)
        if changed:
            with torch.no_grad():
                model.get_submodule(changed).weight[0, 0] += 1e-4
        return start(tmp_path, teacher=model).fingerprint()

    assert teacher() == teacher()
    assert teacher()["weights"]["model"] == start(tmp_path).fingerprint()["weights"]["model"]
    for changed in ("visual_projection", "text_projection"):
        assert teacher(changed)["weights"] != teacher()["weights"]


def test_adapter_s_settings_are_compared_whatever_the_order_of_its_sets(tmp_path):
    def adapter(**options):
        trainer = start(tmp_path, peft_config=LoraConfig(**{**LORA, **options}), max_steps=1, save_strategy="no")
        trainer.train()
        return json.loads(json.dumps(trainer.fingerprint(), default=sorted))["adapters"]["default"]

    plain = adapter(exclude_modules=["out_proj", "k_proj", "fc2", "pre_layrnorm"])
    assert plain["exclude_modules"] == ["fc2", "k_proj", "out_proj", "pre_layrnorm"]
    assert adapter(lora_alpha=16)["lora_alpha"] != plain["lora_alpha"]


def test_first_weights_of_an_adapter_are_not_compared(tmp_path):
    digests, config = [], LoraConfig(r=4, target_modules=r"vision_model\..*\.q_proj")
    for seed in (1, 2):
        base = make_model()
        torch.manual_seed(seed)
        digests.append(start(tmp_path, model=get_peft_model(base, config)).fingerprint()["weights"])
    assert digests[0] == digests[1]


def test_legitimate_changes_are_accepted(whole, tmp_path):
    longer = start(
        tmp_path,
        max_steps=7,
        logging_steps=2,
        save_steps=3,
        per_device_eval_batch_size=4,
        eval_num_steps=5,
        save_total_limit=2,
        learning_rate=1e-3,
    )
    longer.train(resume_from_checkpoint=Path(whole().args.output_dir) / "checkpoint-4")
    assert longer._initial_global_step == 4 and longer.state.global_step == 7


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["model", "optimizer", "random state", "trainer state", "seal"])
def test_full_disk_leaves_the_checkpoint_before(whole, tmp_path, monkeypatch, place):
    trainer = start(tmp_path, save_total_limit=1)
    owner, name = {
        "model": (trainer.model, "save_pretrained"),
        "optimizer": (trainer, "_save_optimizer_and_scheduler"),
        "random state": (trainer, "_save_rng_state"),
        "trainer state": (TrainerState, "save_to_json"),
        "seal": (checkpoints, "seal"),
    }[place]
    with monkeypatch.context() as patch:
        trainer.add_callback(At("on_step_begin", 3, lambda _: patch.setattr(owner, name, no_space)))
        with pytest.raises(OSError, match="checkpoint-4 could not be written.*No space left.*checkpoint-2"):
            trainer.train()
    assert checkpoints.defect(tmp_path / "checkpoint-2") is None
    assert trainer.args.save_total_limit == 1

    resumed = start(tmp_path, save_total_limit=1, save_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(resumed, whole())
    (left,) = tmp_path.glob("checkpoint-*")
    assert left.name == "checkpoint-6" and checkpoints.defect(left) is None
    assert json.loads((left / "training_config.json").read_text())["save_total_limit"] == 1


def test_a_disk_that_fills_while_a_checkpoint_is_written_ends_in_one_line_that_says_how_much_is_free(whole, tmp_path):
    trainer = start(tmp_path)
    with contextlib.ExitStack() as stack:
        trainer.add_callback(At("on_step_begin", 3, lambda _: stack.enter_context(full_disk())))
        with pytest.raises(OSError, match="checkpoint-4 could not be written.* MB are free.*checkpoint-2") as caught:
            trainer.train()
    assert "\n" not in str(caught.value) and not (tmp_path / "run.lock").exists()

    resumed = start(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(resumed, whole())


def test_checkpoint_over_a_cut_off_one_holds_nothing_stale(whole, tmp_path):
    copy_checkpoints(whole(), tmp_path, 2)
    cut_off = tmp_path / "checkpoint-4"
    cut_off.mkdir()
    for stale in ("model-00001-of-00002.safetensors", f"{checkpoints.MANIFEST}.partial"):
        (cut_off / stale).write_bytes(b"stale")
    start(tmp_path).train(resume_from_checkpoint=True)
    assert sorted(path.name for path in cut_off.iterdir()) == sorted(FILES)
    assert checkpoints.defect(cut_off) is None


def test_there_is_a_complete_checkpoint_at_any_time(tmp_path, monkeypatch):
    trainer, seen = start(tmp_path, save_total_limit=1), []
    seal = checkpoints.seal

    def watched(folder, fingerprint):
        seen.append(checkpoints.newest_complete(tmp_path)[0] if seen else None)
        seal(folder, fingerprint)

    monkeypatch.setattr(checkpoints, "seal", watched)
    trainer.train()
    assert seen == [None, str(tmp_path / "checkpoint-2"), str(tmp_path / "checkpoint-4")]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_rotation_prefers_a_complete_checkpoint_to_a_later_step_that_was_cut_off(whole, tmp_path):
    copy_checkpoints(whole(), tmp_path, 2, 4, 6)
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-of-mine").mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))  # as file systems without modification times show them
    checkpoints.rotate(tmp_path, None, [tmp_path / "checkpoint-4"])
    assert len(list(tmp_path.iterdir())) == 4
    checkpoints.rotate(tmp_path, 2, [tmp_path / "checkpoint-4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-of-mine"]
    checkpoints.rotate(tmp_path, 1, [tmp_path / "checkpoint-4", tmp_path / "checkpoint-2"])
    assert len(list(tmp_path.iterdir())) == 3
    checkpoints.rotate(tmp_path, 1, [tmp_path / "checkpoint-4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-of-mine"]


def test_upload_waits_until_the_checkpoint_is_complete(tmp_path, monkeypatch):
    trainer, uploaded = start(tmp_path, max_steps=2), []
    trainer.args.push_to_hub = True
    monkeypatch.setattr(trainer, "_push_from_checkpoint", lambda folder: uploaded.append(checkpoints.defect(folder)))
    trainer.train()
    assert uploaded == [None]
    config = json.loads((tmp_path / "checkpoint-2" / "training_config.json").read_text())
    assert config["push_to_hub"] is True


@pytest.mark.parametrize("logging_steps", [1, 500])
@pytest.mark.parametrize(("event", "gradient"), [("on_step_begin", False), ("on_pre_optimizer_step", True)])
def test_nan_stops_the_run_and_reaches_no_checkpoint(whole, tmp_path, logging_steps, event, gradient):
    breaking = At(event, 3, lambda kwargs: poison(kwargs, gradient))
    trainer = start(tmp_path, logging_steps=logging_steps, callbacks=[breaking])
    with pytest.raises(FloatingPointError, match="became NaN or infinite by step 4"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]

    resumed = start(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(resumed, whole())


def test_infinite_loss_with_sound_weights_stops_the_run(tmp_path, monkeypatch):
    trainer = start(tmp_path, logging_steps=500, objective="tecoa", learning_rate=0.0)
    loss = trainer.objective.loss
    constant = torch.tensor(float("inf"))

    def infinite(*args):
        terms = loss(*args)
        return {"adversarial_ce": terms["adversarial_ce"] + (constant if trainer.state.global_step == 2 else 0)}

    monkeypatch.setattr(type(trainer.objective), "loss", lambda self, *args: infinite(*args))
    with pytest.raises(FloatingPointError, match="by step 4"):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_nan_stops_the_run_at_the_next_log_line(tmp_path):
    trainer = start(tmp_path, save_strategy="no", logging_steps=2, callbacks=[At("on_step_begin", 2, poison)])
    with pytest.raises(FloatingPointError, match="by step 4"):
        trainer.train()
    assert len(step_lines(trainer)) == 1


def test_training_does_not_return_broken_weights(tmp_path):
    breaking = At("on_pre_optimizer_step", 2, lambda kwargs: poison(kwargs, gradient=True))
    trainer = start(tmp_path, save_strategy="no", logging_steps=1, max_steps=3, callbacks=[breaking])
    with pytest.raises(FloatingPointError, match="by step 3"):
        trainer.train()


def test_one_trainer_can_resume_after_a_nan(whole, tmp_path):
    trainer = start(tmp_path)
    trainer.add_callback(At("on_step_begin", 3, poison))
    with pytest.raises(FloatingPointError):
        trainer.train()
    trainer.callback_handler.remove_callback(At)
    trainer.train(resume_from_checkpoint=True)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, whole().model.state_dict()[name])


def test_finite_check_waits_for_the_device_only_at_logs_and_saves(tmp_path, monkeypatch):
    trainer = start(tmp_path, logging_steps=500, max_steps=5, save_steps=4)
    checked, waits = [], []
    check = trainer._check_finite
    monkeypatch.setattr(trainer, "_check_finite", lambda: (checked.append(trainer.state.global_step), check()))
    compute_loss = trainer.compute_loss

    def watched(*args, **kwargs):
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, lambda self, *args, name=name: waits.append(name))
            return compute_loss(*args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", watched)
    trainer.train()
    assert waits == []
    assert checked == [4, 5, 5]  # two saves, and the end


def secrets_in(folder, secrets):
    for path in Path(folder).rglob("*"):
        if not path.is_file():
            continue
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if any(secret.encode() in content for content in contents for secret in secrets):
            yield path


def test_no_secret_reaches_a_file(tmp_path, monkeypatch):
    secrets = ["hf_secretargument", "hf_secretenvironment"]
    monkeypatch.setenv("HF_TOKEN", secrets[1])
    trainer = start(tmp_path, hub_token=secrets[0], eval_dataset=make_images(8), peft_config=LoraConfig(**LORA))
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    trainer.save_merged(str(tmp_path / "merged"))
    trainer.create_model_card()
    assert trainer.args.hub_token == secrets[0]
    torch.save(trainer.args, tmp_path / "probe.zip")
    assert list(secrets_in(tmp_path, secrets)) == [tmp_path / "probe.zip"]  # the search finds what is there
    assert not list(tmp_path.rglob("training_args*"))
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        config = json.loads((folder / "training_config.json").read_text())
        assert (config["eps"], config["norm"], config["num_steps"]) == ("8/255", "linf", 2)
        assert not [key for key in config if key.endswith("_token")]


def test_sigterm_is_let_go_of_when_training_fails(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, callbacks=[At("on_step_end", 1, stop)]).train()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_checkpoint_is_a_plain_clip(whole):
    folder = Path(whole().args.output_dir) / "checkpoint-6"
    model, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in whole().model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert not list(folder.glob("*.bin"))


@pytest.mark.parametrize(
    ("event", "step", "save_steps"), [("on_step_begin", 3, 5), ("on_step_end", 3, 5), ("on_save", 2, 2)]
)
def test_sigterm_leaves_a_checkpoint_that_goes_on_exactly(whole, tmp_path, monkeypatch, event, step, save_steps):
    handler = signal.getsignal(signal.SIGTERM)
    terminated = At(event, step, lambda _: signal.raise_signal(signal.SIGTERM))
    options = {**KINDS["lora"], "save_total_limit": 1, "save_steps": save_steps}
    stopped = start(tmp_path, callbacks=[terminated], **options)
    written = []
    seal = checkpoints.seal
    monkeypatch.setattr(checkpoints, "seal", lambda folder, known: (written.append(folder.name), seal(folder, known)))
    stopped.train()
    assert signal.getsignal(signal.SIGTERM) == handler
    assert stopped.interrupted and stopped.state.global_step < 6
    assert len(written) == len(set(written))  # no complete checkpoint is written over
    (left,) = tmp_path.glob("checkpoint-*")
    assert checkpoints.defect(left) is None

    resumed = start(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(resumed, whole("lora"))
