"""`PMGAFTConfig`: threat model, objective and tuning beside `TrainingArguments`, checked before anything is loaded.

Each option stands here with its meaning and its default; what it must be is in `config_checks.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from .attacks import TRAINING_ATTACKS
from .attacks.ball import NORMS, parse_factor, parse_radius, parse_step_size
from .attacks.losses import LOSSES
from .config_checks import (
    check_attack,
    check_averages,
    check_dict,
    check_hub,
    check_json,
    check_named_radius,
    check_noise,
    check_optional_count,
    check_sigma,
    check_step_size,
)
from .distributed import split_batch
from .engines import broadcast_buffers, check_engine, check_engine_requested, tell_deepspeed_of_cpu
from .files import check_output_folder
from .installed import check_installed
from .modes import ATTACK_PRECISIONS
from .objectives import OBJECTIVES, make_objective
from .registry import check_choice
from .trainer_arguments import check_arguments, check_direction, choose_by_robust_accuracy
from .tuning import TUNINGS, make_tuning

# Radii, and counts of things to do. One whose default is `None` may stay `None`.
RADII = ("eps", "eval_eps")
COUNTS = (
    "num_steps",
    "eval_num_steps",
    "eval_restarts",
    "eval_max_samples",
    "per_device_eval_batch_size",
)
BATCH = ("total_train_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps")
# Flags that newer transformers calls otherwise.
RENAMED_FLAGS = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


@dataclass
class PMGAFTConfig(TrainingArguments):
    r"""Configures a run of [`PMGAFTTrainer`]: threat model, objective, tuning, and all of `TrainingArguments`.

    Radii are in the scale of images in [0,1] and may be written as fractions, `"4/255"`.

    Args:
        > Threat model of training

        attack (`str`, defaults to `"pgd"`): Name of the attack, see `hf_pmgaft.attacks.TRAINING_ATTACKS`.
        norm (`str`, defaults to `"linf"`): Norm of the ball, `"linf"` or `"l2"`.
        eps (`str`, defaults to `"1/255"`): Radius of the ball.
        num_steps (`int`, defaults to 2): Attack steps.
        step_size (`str`, *optional*): Length of a step, absolute as `"1/255"` or in units of `eps` as `"1eps"` and
            `"2/3 eps"`; `2.5 * eps / num_steps` if not given (`eps` for one step). All of them must reach `eps`. Of
            the attack `"shared"` it is the number that its gradient is multiplied by.
        random_start (`bool`, defaults to `True`): Whether the attack starts at a random point of the ball.
        attack_kwargs (`dict`, *optional*): Further options of the attack, such as `{"loss": "margin"}`, or `{"tau":
            0}` for PGD that stops early (another recipe, see `hf_pmgaft.attacks.early_stopped`).
        attack_precision (`str`, defaults to `"follow"`): What the training attack computes in: `"follow"` the run's
            mixed precision; `"fp32"` under mixed precision too; `"bf16"` by autocast while training stays in float32.
            The last is another recipe, since the signs of small gradients change: the logs tell the share of pixels
            where they do not, `attack_sign_agreement`, at the end of the walk of the first batch after each log line.
            Evaluation is always in float32.

        > Threat model of evaluation

        eval_eps (`str`, *optional*): Radius; that of training if not given.
        eval_num_steps (`int`, defaults to 20): Attack steps.
        eval_step_size (`str`, *optional*): Length of a step, written as `step_size`; `2.5 * eval_eps /
            eval_num_steps` if not given.
        eval_loss (`str`, defaults to `"margin"`): Loss that the attack maximises, `"ce"`, `"margin"` or `"dlr"`.
        eval_restarts (`int`, defaults to 1): Random restarts.
        eval_max_samples (`int`, *optional*): Images per evaluation set, chosen by the seed; all if not given.

        > Objective and tuning

        objective (`str`, defaults to `"pmg_aft"`): Name of the objective, see `hf_pmgaft.objectives.OBJECTIVES`.
        objective_kwargs (`dict`, *optional*): Its options, such as `{"alpha": 2.0}`.
        tuning (`str`, defaults to `"vision_tower"`): What is trained, see `hf_pmgaft.tuning.TUNINGS`.
        tuning_kwargs (`dict`, *optional*): Its options, such as `{"blocks": 2}` of `"last_blocks"` or `{"peft_type":
            "LORA", "r": 8}` of `"peft"`.
        ema_decay (`float`, *optional*): Evaluate and save an exponential moving average of the trained weights; each
            step it moves towards them by 1 - ema_decay.
        wise_ft (`float`, *optional*): Evaluate and save `(1 - wise_ft) original + wise_ft tuned` weights, above 0 to
            1 (WiSE-FT, arXiv 2109.01903).
        augmentation (`float`, defaults to 0.0): Strength of random flips, shifts, scalings, rotations and colour
            changes, 0 (none) to 1. They follow the run's seed and the sample, whatever the number of processes.
        noise_sigma (`str`, *optional*): Standard deviation of normal noise that is added to each image, drawn anew in
            each step and not clipped, in the scale of images in [0,1]: training for certificates under that noise
            (Cohen et al., ICML 2019, arXiv 1902.02918). For objectives without adversarial images, such as `"clean"`.
        overwrite (`bool`, defaults to `False`): Whether a run that `output_dir` holds is removed (checkpoints, model,
            reports, pictures and card, nothing else) instead of refused.

        > Batch

        total_train_batch_size (`int`, *optional*): Images per optimizer step, whatever the number of processes. Of
            `per_device_train_batch_size` and `gradient_accumulation_steps`, what is not given follows from it: each
            process takes its share at once, or as many at a time as `per_device_train_batch_size` says. Without it
            these two have Trainer's defaults, 8 and 1, and an optimizer step grows with the number of processes.

    Changed defaults of `TrainingArguments`: `remove_unused_columns=False` (image columns and sample ids are needed),
    `logging_nan_inf_filter=False` (a NaN stops the run instead of being logged as 0), `logging_steps=10`,
    `ddp_broadcast_buffers=False` with older torch, `ddp_find_unused_parameters=False`, `do_eval=True`,
    `do_train=True`, `enable_jit_checkpoint=True` (SIGTERM and Ctrl-C save a checkpoint and end training),
    `learning_rate=1e-5`, `weight_decay=1e-4`, `lr_scheduler_type="cosine"`, `per_device_eval_batch_size` as that of
    training.
    `gradient_checkpointing` and its options stay where newer transformers calls them `activation_checkpointing`;
    either name does.

    Raises:
        ValueError: for what cannot work, before a model or data is loaded.

    Example:
        >>> args = PMGAFTConfig(output_dir="clip-tecoa", objective="tecoa", eps="4/255", num_steps=10, use_cpu=True)
        >>> args.attack_options()
        {'eps': 0.0156..., 'norm': 'linf', 'num_steps': 10, 'step_size': None, 'random_start': True}
        >>> PMGAFTConfig(eps="4", use_cpu=True)
        Traceback (most recent call last):
        ValueError: eps: You passed the radius 4, ... If you meant 4 of 255 grey levels, write 4/255.
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "attack_kwargs", "objective_kwargs", "tuning_kwargs"]

    # Threat model of training
    attack: str = field(default="pgd", metadata={"help": f"Training attack, one of {sorted(TRAINING_ATTACKS)}."})
    norm: str = field(default="linf", metadata={"help": f"Norm of the ball, one of {sorted(NORMS)}."})
    eps: str = field(default="1/255", metadata={"help": "Radius in the scale of images in [0,1], such as 4/255."})
    num_steps: int = field(default=2, metadata={"help": "Steps of the training attack."})
    step_size: str | None = field(
        default=None,
        metadata={"help": "Step length, such as 1/255, or 0.5eps of eps; 2.5 * eps / num_steps if not given."},
    )
    random_start: bool = field(default=True, metadata={"help": "Start at a random point of the ball."})
    attack_kwargs: dict | str | None = field(
        default=None, metadata={"help": 'Further options of the attack as JSON, such as \'{"loss": "margin"}\'.'}
    )
    attack_precision: str = field(
        default="follow",
        metadata={"help": f"What the training attack computes in, one of {sorted(ATTACK_PRECISIONS)}."},
    )

    # Threat model of evaluation
    eval_eps: str | None = field(default=None, metadata={"help": "Radius in evaluation; eps if not given."})
    eval_num_steps: int = field(default=20, metadata={"help": "Steps of the attack in evaluation."})
    eval_step_size: str | None = field(
        default=None,
        metadata={
            "help": "Step length in evaluation, written as step_size; 2.5 * eval_eps / eval_num_steps if not given."
        },
    )
    eval_loss: str = field(default="margin", metadata={"help": f"Loss of the evaluation attack: {sorted(LOSSES)}."})
    eval_restarts: int = field(default=1, metadata={"help": "Random restarts of the evaluation attack."})
    eval_max_samples: int | None = field(
        default=None, metadata={"help": "Images per evaluation set; all if not given."}
    )

    # Objective and tuning
    objective: str = field(default="pmg_aft", metadata={"help": f"Objective, one of {sorted(OBJECTIVES)}."})
    objective_kwargs: dict | str | None = field(
        default=None, metadata={"help": "Options of the objective as JSON, such as '{\"alpha\": 2.0}'."}
    )
    tuning: str = field(default="vision_tower", metadata={"help": f"What is trained, one of {sorted(TUNINGS)}."})
    tuning_kwargs: dict | str | None = field(
        default=None, metadata={"help": "Options of the tuning as JSON, such as '{\"blocks\": 2}' for last_blocks."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Evaluate and save a moving average of the weights, such as 0.999."}
    )
    wise_ft: float | None = field(
        default=None, metadata={"help": "Evaluate and save a mix: this share of the tuned weights, the rest original."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Remove an earlier run from output_dir, and begin anew."})
    augmentation: float = field(default=0.0, metadata={"help": "Strength of the augmentation, 0 to 1."})
    noise_sigma: str | None = field(
        default=None, metadata={"help": "Standard deviation of normal noise on each image, with the objective clean."}
    )

    # Batch. The latter two are as in `TrainingArguments`, but say whether they were given.
    total_train_batch_size: int | None = field(
        default=None, metadata={"help": "Images per optimizer step, whatever the number of processes."}
    )
    per_device_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "Images per process at a time; its share of total_train_batch_size if not given, or 8."},
    )
    gradient_accumulation_steps: int | None = field(
        default=None, metadata={"help": "Batches per optimizer step; follows from total_train_batch_size, or 1."}
    )

    # Changed defaults of `TrainingArguments`
    do_train: bool = field(default=True, metadata={"help": "Always true; `pmgaft evaluate` evaluates alone."})
    do_eval: bool = field(default=True, metadata={"help": "Evaluate before and after training."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep image columns and sample ids."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Off: a NaN stops the run."})
    ddp_broadcast_buffers: bool | None = field(
        default_factory=broadcast_buffers, metadata={"help": "Not needed: all buffers are constants."}
    )
    ddp_find_unused_parameters: bool = field(default=False, metadata={"help": "Off: every step uses all of them."})
    enable_jit_checkpoint: bool = field(
        default=True, metadata={"help": "SIGTERM and Ctrl-C save a checkpoint and end training."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay."})
    per_device_eval_batch_size: int | None = field(
        default=None, metadata={"help": "Images that a device evaluates at once; as many as it trains on if absent."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})

    def __post_init__(self):
        # What the parent reads. Of the engine it must be told before it sets up its devices.
        for name in self._VALID_DICT_FIELDS:
            check_json(name, getattr(self, name))
        pass_on_renamed_flags(self)
        check_arguments(self)
        choose_by_robust_accuracy(self)
        check_engine_requested(self)

        # The batch of a process. DeepSpeed reads it while devices are set up, and only then all of them are known.
        for name in BATCH:
            check_optional_count(name, getattr(self, name), is_optional=True)
        batch = tuple(getattr(self, name) for name in BATCH)
        self._set_batch(batch, processes=int(os.environ.get("WORLD_SIZE", 1)))
        super().__post_init__()
        self._set_batch(batch, processes=self.world_size * max(1, self.n_gpu))
        if self.per_device_eval_batch_size is None:
            self.per_device_eval_batch_size = self.per_device_train_batch_size
        check_direction(self)

        # What depends on the devices, which are known from here on.
        check_choice("attack_precision", self.attack_precision, ATTACK_PRECISIONS)
        check_engine(self)
        tell_deepspeed_of_cpu(self.device)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is no device to copy to, and torch would warn

        # Single values. Names come first, since radii are read in the norm.
        check_choice("attack", self.attack, TRAINING_ATTACKS)
        check_choice("norm", self.norm, NORMS)
        check_choice("eval_loss", self.eval_loss, LOSSES)
        for name in RADII:
            check_named_radius(name, getattr(self, name), self.norm, is_optional=self._is_optional(name))
        check_step_size(self, "step_size", "num_steps", self.eps)
        check_step_size(self, "eval_step_size", "eval_num_steps", self.eval_eps or self.eps)
        for name in COUNTS:
            check_optional_count(name, getattr(self, name), is_optional=self._is_optional(name))
        if not 0 <= self.augmentation <= 1:
            raise ValueError(f"You passed augmentation={self.augmentation}. Pass a strength from 0 (none) to 1.")
        check_sigma("noise_sigma", self.noise_sigma)

        # Options, of which each choice has its own. An objective or tuning may also be an instance, checked when made.
        for name in ("attack_kwargs", "objective_kwargs", "tuning_kwargs"):
            check_dict(name, getattr(self, name))
        if isinstance(self.objective, str):
            check_noise(self.noise_sigma, make_objective(self.objective, self.objective_kwargs))
        if isinstance(self.tuning, str):
            make_tuning(self.tuning, self.tuning_kwargs)
        check_averages(self.ema_decay, self.wise_ft)

        # The attack as a whole, tried on a small image, which needs all of the above to be right.
        check_attack(self)

        # Places, logs, and what is not there
        check_hub(self)
        check_installed(self)
        if self.logging_nan_inf_filter:
            raise ValueError(
                "You passed logging_nan_inf_filter=True, which logs a NaN loss as 0 and goes on. Leave it off: a NaN "
                "stops the run and keeps the last good checkpoint."
            )

    def _set_batch(self, given: tuple[int | None, ...], processes: int) -> None:
        """Sets what a process takes at a time, and how often, from what was given."""
        self.per_device_train_batch_size, self.gradient_accumulation_steps = split_batch(*given, processes=processes)

    def _is_optional(self, name: str) -> bool:
        """Whether a field may be `None`, as its default is."""
        return getattr(type(self), name) is None

    @property
    def averages_weights(self) -> bool:
        """Whether other weights are evaluated and saved than those of the last step."""
        return self.ema_decay is not None or self.wise_ft is not None

    @property
    def attacks_images(self) -> bool:
        """Whether training makes adversarial images."""
        return make_objective(self.objective, self.objective_kwargs).uses_attack

    @property
    def attack_stops_early(self) -> bool:
        """Whether the training attack takes fewer steps on some images than on others."""
        return isinstance(self.attack_kwargs, dict) and self.attack_kwargs.get("tau") is not None

    def attack_options(self) -> dict[str, Any]:
        """Gives the keyword arguments of the training attack."""
        options = {"eps": parse_radius(self.eps, self.norm), "norm": self.norm, **(self.attack_kwargs or {})}
        if self.attack != "fgsm":
            options["num_steps"] = self.num_steps
            options["step_size"] = self._step_size_of_training(options["eps"])
        return {**options, "random_start": self.random_start}

    def _step_size_of_training(self, eps: float) -> float | None:
        if self.step_size is None:
            return None
        if self.attack == "shared":
            return parse_factor(self.step_size)
        return parse_step_size(self.step_size, eps, self.norm)

    def eval_attack_spec(self) -> dict[str, Any]:
        """Gives the evaluation attack as `evaluate_robustness` takes it."""
        return {
            "attack": "pgd",
            "eps": self.eval_eps or self.eps,
            "norm": self.norm,
            "num_steps": self.eval_num_steps,
            "step_size": self.eval_step_size,
            "loss": self.eval_loss,
            "restarts": self.eval_restarts,
        }


def check_output_dir(output_dir: str | os.PathLike) -> None:
    """Raises `ValueError` if no file can be written into the folder, which need not be there yet.

    Example:
        >>> check_output_dir("run")
    """
    check_output_folder("output_dir", output_dir)


def pass_on_renamed_flags(args: TrainingArguments) -> None:
    """Passes flags on to the names that newer transformers has for them, which then warns of no former name."""
    for former, name in RENAMED_FLAGS.items():
        if hasattr(args, name) and getattr(args, name) is None:
            setattr(args, name, getattr(args, former))
