"""What a user passes of `TrainingArguments`: each field works here, or is refused by name."""

from dataclasses import fields

import pytest
from support.borders import Refused, check, outcomes
from transformers import TrainingArguments

from hf_pmgaft import PMGAFTConfig
from hf_pmgaft.trainer_arguments import PASSED_BY

# Fields that do here what transformers says, each decided for itself.
WORKS = {
    "places and logs": "output_dir logging_strategy logging_steps logging_first_step log_on_each_node log_level "
    "log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id "
    "trackio_static_space_id skip_memory_metrics debug",
    "length and batches": "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
    "num_train_epochs max_steps torch_empty_cache_steps",
    "optimizer": "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay "
    "adam_beta1 adam_beta2 adam_epsilon max_grad_norm",
    "precision, compilation and memory": "bf16 fp16 tf32 torch_compile torch_compile_backend torch_compile_mode "
    "activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs",
    "evaluation and checkpoints": "do_train do_eval eval_strategy eval_steps eval_delay eval_on_start save_strategy "
    "save_steps save_on_each_node save_total_limit save_only_model enable_jit_checkpoint load_best_model_at_end "
    "metric_for_best_model greater_is_better resume_from_checkpoint restore_callback_states_from_checkpoint",
    "Hub": "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision",
    "randomness": "seed data_seed full_determinism",
    "data": "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order",
    "processes": "use_cpu accelerator_config ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
    "ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed local_rank",
    # Whatever their value, the run and its figures are the same.
    "without effect on any result": "average_tokens_across_devices eval_accumulation_steps",
}
# Some of their values are refused, by a check of its own.
REFUSED_VALUES = {"train_sampling_strategy", "optim_target_modules", "logging_nan_inf_filter"}


def test_what_becomes_of_each_argument_is_decided():
    decided = {name for names in WORKS.values() for name in names.split()} | REFUSED_VALUES | set(PASSED_BY)
    undecided = {field.name for field in fields(TrainingArguments)} - decided
    assert not undecided, "Decide: does it work here (WORKS), or is it passed by (trainer_arguments.PASSED_BY)?"


def test_no_argument_works_and_is_refused():
    working = [name for names in WORKS.values() for name in names.split()]
    assert len(set(working)) == len(working)
    assert not set(working) & (set(PASSED_BY) | REFUSED_VALUES)


OTHER_VALUES = {
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0,
    "liger_kernel_config": {"rope": True},
    "include_num_input_tokens_seen": True,
    "length_column_name": "size",
    "label_names": ["label"],
    "eval_do_concat_batches": False,
    "include_for_metrics": ["inputs"],
    "parallelism_config": object(),
}


@pytest.mark.parametrize("name", sorted(PASSED_BY))
def test_an_argument_that_would_be_passed_by_is_refused_by_name(name):
    value = OTHER_VALUES.get(name, True)
    check(lambda: PMGAFTConfig(**{name: value}, use_cpu=True), Refused(f"You passed {name}={value!r}, which "))


@pytest.mark.parametrize("name", sorted(PASSED_BY))
def test_its_default_passes(name):
    default = getattr(TrainingArguments(use_cpu=True), name)
    if name != "remove_unused_columns":  # whose default is another one here
        PMGAFTConfig(**{name: default}, use_cpu=True)


STEPS = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}
ROBUST = "eval_mean_robust_accuracy"
PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", **STEPS}

CASES = {
    "tokens that are not counted": ({"include_num_input_tokens_seen": False}, (None, None, None)),
    "sequential batches": ({"train_sampling_strategy": "sequential"}, (None, None, None)),
    "groups by length": ({"train_sampling_strategy": "group_by_length"}, Refused("'group_by_length'")),
    "modules of no layerwise optimizer": (
        {"optim_target_modules": ["fc1"]},
        Refused("does not read, so as many weights would be trained as without it"),
    ),
    "modules of a layerwise optimizer": (
        {"optim_target_modules": ["fc1"], "optim": "galore_adamw"},
        Refused("You passed optim='galore_adamw', whose library is not there"),
    ),
    "the best at the end": ({"load_best_model_at_end": True, **STEPS}, (ROBUST, True, None)),
    "the best is saved": ({"save_strategy": "best", "eval_strategy": "epoch"}, (ROBUST, True, None)),
    "the best by a metric": (
        {"load_best_model_at_end": True, "metric_for_best_model": "food_robust_accuracy", **STEPS},
        ("food_robust_accuracy", True, None),
    ),
    "the worst": (
        {"metric_for_best_model": ROBUST, "greater_is_better": False},
        Refused("the worst model would be the best one"),
    ),
    "a plateau": (PLATEAU, (ROBUST, True, {"mode": "max"})),
    "a plateau with options": (
        {**PLATEAU, "lr_scheduler_kwargs": {"patience": 3}},
        (ROBUST, True, {"patience": 3, "mode": "max"}),
    ),
    "a plateau by a loss of one's own": (
        {**PLATEAU, "metric_for_best_model": "food_loss"},
        ("food_loss", False, {"mode": "min"}),
    ),
    "a plateau upside down": (
        {**PLATEAU, "lr_scheduler_kwargs": {"mode": "min"}},
        Refused("the learning rate would fall while eval_mean_robust_accuracy gets better"),
    ),
    "a greedy schedule": ({**PLATEAU, "lr_scheduler_type": "greedy"}, (ROBUST, True, {"mode": "max"})),
}


@outcomes(CASES)
def test_what_is_best(given, outcome):
    def choice():
        args = PMGAFTConfig(**given, use_cpu=True)
        return args.metric_for_best_model, args.greater_is_better, args.lr_scheduler_kwargs

    check(choice, outcome)
