"""`PMGAFTConfig`: what it derives from its fields, and what it refuses before a model or data is loaded."""

import warnings
from dataclasses import fields
from types import SimpleNamespace

import pytest
from transformers import TrainingArguments

from hf_pmgaft import PMGAFTConfig
from hf_pmgaft.arguments import parse_args
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.config import check_output_dir, pass_on_renamed_flags


def config(**options) -> PMGAFTConfig:
    return PMGAFTConfig(use_cpu=True, **options)


def test_evaluation_batches_follow_those_of_training(tmp_path):
    def size(**options):
        return PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True, **options).per_device_eval_batch_size

    assert size() == 8
    assert size(per_device_train_batch_size=64) == 64
    assert size(per_device_train_batch_size=64, per_device_eval_batch_size=2) == 2
    with pytest.raises(ValueError, match="per_device_eval_batch_size=0, which is no count. Pass an integer from 1"):
        size(per_device_eval_batch_size=0)


def test_radii_may_be_numbers_or_fractions_and_above_1_in_l2():
    args = PMGAFTConfig(norm="l2", eps="3/2", step_size=2.0, use_cpu=True)
    assert args.attack_options()["eps"] == 1.5 and args.attack_options()["step_size"] == 2.0
    assert PMGAFTConfig(eps=0.5, use_cpu=True).attack_options()["eps"] == 0.5


def test_one_step_attacks_take_the_options_of_pgd():
    args = PMGAFTConfig(attack="fgsm", attack_kwargs={"loss": "margin"}, use_cpu=True)
    assert args.attack_options()["loss"] == "margin"


def test_changed_defaults_are_those_of_the_docstring():
    args = PMGAFTConfig(use_cpu=True)
    assert args.ddp_find_unused_parameters is False
    assert not args.remove_unused_columns and not args.logging_nan_inf_filter and args.do_eval
    assert (args.logging_steps, args.learning_rate, args.weight_decay, args.lr_scheduler_type) == (
        10,
        1e-5,
        1e-4,
        "cosine",
    )


def test_an_attack_with_tau_stops_early_and_averages_are_other_weights():
    assert config(attack_kwargs={"tau": 0}).attack_stops_early and not config().attack_stops_early
    assert config(ema_decay=0.9).averages_weights and config(wise_ft=0.5).averages_weights
    assert not config().averages_weights


# ---- Names that transformers has changed ----

FIELDS = {entry.name for entry in fields(TrainingArguments)}
NAMES = [name for name in ("gradient_checkpointing", "activation_checkpointing") if name in FIELDS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_flag", [False, True])
def test_checkpointing_is_switched_on_under_either_name_without_a_warning(name, as_flag):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        if as_flag:
            (args,) = parse_args(
                [PMGAFTConfig], ["--use_cpu", f"--{name}", f"--{name}_kwargs", '{"use_reentrant": false}']
            )
        else:
            args = config(**{name: True, f"{name}_kwargs": {"use_reentrant": False}})
        plain = config()
    for either in NAMES:
        assert getattr(args, either) is True and getattr(args, f"{either}_kwargs") == {"use_reentrant": False}
        assert getattr(plain, either) is False and getattr(plain, f"{either}_kwargs") is None


def test_a_transformers_that_has_the_former_name_alone_gets_that():
    args = SimpleNamespace(gradient_checkpointing=True, gradient_checkpointing_kwargs=None)
    pass_on_renamed_flags(args)
    assert vars(args) == {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": None}


# ---- What cannot work ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps=0, which leaves no room for an attack"),
        ({"eps": "-1/255"}, "eps: You passed the radius -1/255, but a ball"),
        ({"eps": "4"}, "eps: You passed the radius 4.*If you meant 4 of 255 grey levels, write 4/255"),
        ({"eps": 1.01}, "eps: .*would allow any image"),
        ({"eps": "four"}, "eps: .*'four', which is no number. Write it as 4/255"),
        ({"eps": None}, "eps: .*which is no number"),
        ({"eval_eps": "8"}, "eval_eps: .*write 8/255"),
        ({"step_size": "1"}, "step_size: .*write 1/255"),
        ({"step_size": "2"}, "step_size: .*write 2/255"),
        ({"eval_step_size": 0}, "eval_step_size=0"),
        ({"norm": "l2", "eps": 0}, "eps=0"),
        ({"norm": "l1"}, r"no norm 'l1'. Choose one of \['l2', 'linf'\]"),
        ({"attack": "pdg"}, "no attack 'pdg'. Choose one of .*'pgd'"),
        ({"eval_loss": "kl"}, "no eval_loss 'kl'. Choose one of .*'margin'"),
        ({"attack_precision": "fp64"}, r"no attack_precision 'fp64'. Choose one of \['bf16', 'follow', 'fp32'\]"),
        ({"attack_kwargs": {"steps": 3}}, "takes no steps in attack_kwargs. It takes: .*'momentum'"),
        ({"attack_kwargs": {"eps": "1/255"}}, "takes no eps in attack_kwargs.*arguments of their own"),
        ({"attack_kwargs": {"targeted": True}}, "takes no targeted"),
        ({"attack_kwargs": {"loss": "kl"}}, "cannot take attack_kwargs.*no loss 'kl'"),
        ({"attack_kwargs": {"restarts": "two"}}, "cannot take attack_kwargs={'restarts': 'two'}"),
        ({"objective": "pmg"}, r"no objective 'pmg'. Choose one of \[.*'pmg_aft'"),
        ({"objective_kwargs": {"gamma": 1}}, "'pmg_aft' has no option gamma. It has: .*'alpha'"),
        ({"objective_kwargs": {"alpha": "much"}}, "cannot take alpha='much'. Pass a number"),
        ({"objective_kwargs": [1]}, "Pass a JSON object or a dict"),
        ({"num_steps": 0}, "num_steps=0.*integer from 1"),
        ({"num_steps": 1.5}, "num_steps=1.5.*integer from 1"),
        ({"num_steps": None}, "num_steps=None.*integer from 1"),
        ({"eval_restarts": 0}, "eval_restarts=0"),
        ({"tuning": "last_blocks", "tuning_kwargs": {"blocks": 0}}, "'last_blocks'.*blocks=0, which trains nothing"),
        ({"tuning": "tower"}, r"no tuning 'tower'.*\['deep_prompts', 'last_blocks'"),
        ({"tuning_kwargs": {"blocks": 1}}, "'vision_tower' has no option blocks.*It has: none"),
        ({"tuning": "last_blocks", "tuning_kwargs": {"blocks": 1.5}}, "cannot take blocks=1.5. Pass an integer"),
        ({"tuning": "text_context", "tuning_kwargs": {"class_specific": 1}}, "class_specific=1. Pass true or false"),
        ({"tuning": "deep_prompts", "tuning_kwargs": {"coupling": "none"}}, "coupling='none'.*vision_to_text"),
        ({"tuning": "r_adapter", "tuning_kwargs": {"drop": 1}}, "drop=1.0, which is no probability below 1"),
        ({"tuning": "peft", "tuning_kwargs": {"peft_type": "lara"}}, "peft_type='LARA'.*LORA"),
        ({"tuning": "peft", "tuning_kwargs": {"rank": 2}}, "cannot take {'rank': 2} for LORA.*rank"),
        ({"tuning": "peft", "tuning_kwargs": {"towers": "text"}}, "towers='text'. Pass 'vision' or 'both'"),
        ({"ema_decay": 1.0}, "ema_decay=1.0. Pass a number from 0 to below 1"),
        ({"wise_ft": 0.0}, "wise_ft=0.0. Pass the tuned weights' share, above 0 to 1"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size=0"),
        ({"objective": "clean", "noise_sigma": 0}, "noise_sigma: .*above 0"),
        ({"objective": "clean", "noise_sigma": "64"}, "noise_sigma: .*write 64/255"),
        ({"noise_sigma": 0.25}, "noise_sigma=0.25 with the objective PMGAFT.* Pass objective='clean'"),
        ({"augmentation": 1.5}, "augmentation=1.5. Pass a strength from 0"),
        ({"logging_nan_inf_filter": True}, "logs a NaN loss as 0.*Leave it off"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_configurations_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_a_push_without_token_or_name_is_refused_before_training(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="no token to push with.*hf auth login"):
        config(push_to_hub=True)
    with pytest.raises(ValueError, match="without a name. Pass hub_model_id"):
        config(push_to_hub=True, hub_token="hf_x", output_dir=".")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert config(push_to_hub=True, hub_model_id="user/clip").push_to_hub


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output_dir .*cannot be written to.*Not a directory.*Pass a folder"):
        check_output_dir(tmp_path / "file" / "out")
    check_output_dir(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()  # before there is something to write


# ---- Steps in units of the radius, and batches ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": "4/255", "num_steps": 2, "step_size": "1/255"}, "2 steps of 1/255, which together reach 0.5"),
        ({"eps": "4/255", "eval_num_steps": 3, "eval_step_size": "0.25eps"}, "eval_step_size: .*reach 0.75"),
        ({"eval_eps": "8/255", "eval_step_size": "1/2550"}, "reach 0.25 of the radius 8/255"),
        ({"step_size": "eps"}, "step_size: .*no length"),
        ({"step_size": 0}, "step_size=0, by which no walk moves on"),
        ({"attack": "shared", "step_size": "1eps"}, "step_size: .*no number. Write it as 0.05"),
        ({"total_train_batch_size": 0}, "total_train_batch_size=0"),
        ({"total_train_batch_size": True}, "total_train_batch_size=True"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0"),
    ],
)
def test_steps_and_batches_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_a_step_in_units_of_the_radius_follows_it():
    assert config(eps="4/255", step_size="2/3 eps").attack_options()["step_size"] == pytest.approx(8 / 765)
    spec = config(eps="4/255", eval_eps="8/255", eval_step_size="0.25eps").eval_attack_spec()
    assert AttackSpec.of(spec).options["step_size"] == "0.25eps" and AttackSpec.of(spec).radius == 8 / 255
    assert config(attack="shared", step_size="2").attack_options()["step_size"] == 2
    assert "step_size" not in config(attack="fgsm", step_size="1/2550").attack_options()


def test_without_a_total_the_batch_is_that_of_trainer():
    args = config()
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 1)
    args = config(per_device_train_batch_size=4, gradient_accumulation_steps=3)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.train_batch_size) == (4, 3, 4)


def test_a_total_batch_is_shared_by_the_processes(monkeypatch):
    assert config(total_train_batch_size=256).per_device_train_batch_size == 256
    assert config(total_train_batch_size=256, per_device_train_batch_size=64).gradient_accumulation_steps == 4
    assert config(total_train_batch_size=256, gradient_accumulation_steps=4).per_device_train_batch_size == 64
    monkeypatch.setattr(PMGAFTConfig, "world_size", property(lambda self: 8))
    args = config(total_train_batch_size=256)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (32, 1)


def test_a_token_that_no_header_can_carry_is_refused_unseen(tmp_path):
    token = "hf_writes_for_tests"
    with pytest.raises(ValueError, match="hub_token with spaces, line ends") as raised:
        PMGAFTConfig(output_dir=str(tmp_path), push_to_hub=True, hub_token=f"{token}\n", use_cpu=True)
    assert token not in str(raised.value)
