"""`PMGAFTConfig`: threat model, objective and tuning beside `TrainingArguments`; command lines with YAML defaults."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from .attacks import ATTACKS, LOSSES, NORMS, parse_radius
from .objectives import OBJECTIVES, make_objective


@dataclass
class PMGAFTConfig(TrainingArguments):
    r"""
    Arguments of [`PMGAFTTrainer`]: those of `transformers.TrainingArguments` and the following. Radii are in the scale
    of images in [0,1] and may be written as fractions, `"4/255"`.

    Args:
        > Threat model of training

        attack (`str`, defaults to `"pgd"`): Name of the attack, see `hf_pmgaft.attacks.ATTACKS`.
        norm (`str`, defaults to `"linf"`): Norm of the ball, `"linf"` or `"l2"`.
        eps (`str`, defaults to `"1/255"`): Radius of the ball.
        num_steps (`int`, defaults to 2): Attack steps.
        step_size (`str`, *optional*): Length of a step; `2.5 * eps / num_steps` if not given (`eps` for one step).
        random_start (`bool`, defaults to `True`): Whether the attack starts at a random point of the ball.
        attack_kwargs (`dict`, *optional*): Further options of the attack, such as `{"loss": "margin"}`.

        > Threat model of evaluation

        eval_eps (`str`, *optional*): Radius; that of training if not given.
        eval_num_steps (`int`, defaults to 20): Attack steps.
        eval_step_size (`str`, *optional*): Length of a step; `2.5 * eval_eps / eval_num_steps` if not given.
        eval_loss (`str`, defaults to `"margin"`): Loss that the attack maximises, `"ce"`, `"margin"` or `"dlr"`.
        eval_restarts (`int`, defaults to 1): Random restarts.
        eval_max_samples (`int`, *optional*): Images per evaluation set, chosen by the seed; all if not given.

        > Objective and tuning

        objective (`str`, defaults to `"pmg_aft"`): Name of the objective, see `hf_pmgaft.objectives.OBJECTIVES`.
        objective_kwargs (`dict`, *optional*): Its options, such as `{"alpha": 2.0}`.
        trainable_layers (`int`, *optional*): Train only the last n blocks of the vision tower, with what follows them;
            the whole vision tower if not given.
        augmentation (`float`, defaults to 0.0): Strength of random flips, shifts, scalings, rotations and colour
            changes, 0 (none) to 1. They follow the run's seed and the sample, whatever the number of processes.

    Changed defaults of `TrainingArguments`: `remove_unused_columns=False` (image columns and sample ids are needed),
    `logging_nan_inf_filter=False` (a NaN stops the run instead of being logged as 0), `logging_steps=10`,
    `do_eval=True`, `learning_rate=1e-5`, `weight_decay=1e-4`, `lr_scheduler_type="cosine"`.
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "attack_kwargs", "objective_kwargs"]

    attack: str = field(default="pgd", metadata={"help": f"Training attack, one of {sorted(ATTACKS)}."})
    norm: str = field(default="linf", metadata={"help": f"Norm of the ball, one of {sorted(NORMS)}."})
    eps: str = field(default="1/255", metadata={"help": "Radius in the scale of images in [0,1], such as 4/255."})
    num_steps: int = field(default=2, metadata={"help": "Steps of the training attack."})
    step_size: str | None = field(default=None, metadata={"help": "Step length; 2.5 * eps / num_steps if not given."})
    random_start: bool = field(default=True, metadata={"help": "Start at a random point of the ball."})
    attack_kwargs: dict | str | None = field(
        default=None, metadata={"help": 'Further options of the attack as JSON, such as \'{"loss": "margin"}\'.'}
    )
    eval_eps: str | None = field(default=None, metadata={"help": "Radius in evaluation; eps if not given."})
    eval_num_steps: int = field(default=20, metadata={"help": "Steps of the attack in evaluation."})
    eval_step_size: str | None = field(
        default=None, metadata={"help": "Step length in evaluation; 2.5 * eval_eps / eval_num_steps if not given."}
    )
    eval_loss: str = field(default="margin", metadata={"help": f"Loss of the evaluation attack: {sorted(LOSSES)}."})
    eval_restarts: int = field(default=1, metadata={"help": "Random restarts of the evaluation attack."})
    eval_max_samples: int | None = field(
        default=None, metadata={"help": "Images per evaluation set; all if not given."}
    )
    objective: str = field(default="pmg_aft", metadata={"help": f"Objective, one of {sorted(OBJECTIVES)}."})
    objective_kwargs: dict | str | None = field(
        default=None, metadata={"help": "Options of the objective as JSON, such as '{\"alpha\": 2.0}'."}
    )
    trainable_layers: int | None = field(
        default=None,
        metadata={"help": "Train the last n vision blocks and what follows; the whole tower if not given."},
    )
    augmentation: float = field(default=0.0, metadata={"help": "Strength of the augmentation, 0 to 1."})

    do_eval: bool = field(default=True, metadata={"help": "Evaluate before and after training."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep image columns and sample ids."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Off: a NaN stops the run."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})

    def __post_init__(self):
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is no device to copy to, and torch would warn
        _check_choice("attack", self.attack, ATTACKS)
        _check_choice("norm", self.norm, NORMS)
        _check_choice("eval_loss", self.eval_loss, LOSSES)
        for name in ("eps", "eval_eps", "step_size", "eval_step_size"):
            _check_radius(name, getattr(self, name), self.norm)
        for name in ("num_steps", "eval_num_steps", "eval_restarts", "eval_max_samples", "trainable_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"You passed {name}={value}, which leaves nothing to do. Pass 1 or more.")
        if not 0 <= self.augmentation <= 1:
            raise ValueError(f"You passed augmentation={self.augmentation}. Pass a strength from 0 (none) to 1.")
        for name in ("attack_kwargs", "objective_kwargs"):
            if not isinstance(getattr(self, name) or {}, dict):
                raise ValueError(f"You passed {name}={getattr(self, name)!r}. Pass a JSON object or a dict.")
        if isinstance(self.objective, str):
            make_objective(self.objective, self.objective_kwargs)
        self._check_attack_kwargs()
        self._check_hub()
        if self.logging_nan_inf_filter:
            raise ValueError(
                "You passed logging_nan_inf_filter=True, which logs a NaN loss as 0 and goes on. Leave it off: a NaN "
                "stops the run and keeps the last good checkpoint."
            )

    def _check_attack_kwargs(self):
        import inspect

        parameters = set(inspect.signature(ATTACKS[self.attack]).parameters)
        fixed = {"classifier", "images", "labels", "eps", "norm", "num_steps", "step_size", "random_start"}
        fixed |= {"loss_fn", "seeds"}
        unknown = sorted(set(self.attack_kwargs or {}) - (parameters - fixed))
        if unknown:
            raise ValueError(
                f"Attack {self.attack!r} takes no {', '.join(unknown)} in attack_kwargs. It takes: "
                f"{sorted(parameters - fixed)}; the radius and the steps have arguments of their own."
            )

    def _check_hub(self):
        if not self.push_to_hub:
            return
        from huggingface_hub import get_token

        if not (self.hub_token or get_token()):
            raise ValueError(
                "You passed push_to_hub=True, but there is no token to push with, which would be found only after "
                "training. Run `hf auth login`, set HF_TOKEN or pass hub_token."
            )
        if not (self.hub_model_id or Path(self.output_dir).name):
            raise ValueError("You passed push_to_hub=True without a name. Pass hub_model_id='user/clip-pmgaft'.")

    def attack_options(self) -> dict[str, Any]:
        """Keyword arguments of the training attack."""
        options = {"eps": parse_radius(self.eps), "norm": self.norm, **(self.attack_kwargs or {})}
        if self.attack != "fgsm":
            options["num_steps"] = self.num_steps
            options["step_size"] = None if self.step_size is None else parse_radius(self.step_size)
        return {**options, "random_start": self.random_start}

    def eval_attack_spec(self) -> dict[str, Any]:
        """The evaluation attack as `evaluate_robustness` takes it."""
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
    """Raises `ValueError` if no file can be written into the folder; it is made if need be."""
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise ValueError(
            f"You passed output_dir={str(output_dir)!r}, which cannot be written to ({error.strerror}), so the "
            "checkpoint would be lost. Pass a folder that you may write to."
        ) from error


def parse_args(dataclass_types: Sequence[type], argv: Sequence[str] | None = None, description: str | None = None):
    """Parses a command line into dataclasses; `--config file.yaml` sets defaults that flags override.

    Unknown and abbreviated keys are refused, in the file as on the command line. `{config_dir}` in the file stands for
    its folder.

    Returns:
        `tuple`: One instance per dataclass.
    """
    parser = HfArgumentParser(dataclass_types, description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file of defaults, which flags override.")
    config = HfArgumentParser([], add_help=False, allow_abbrev=False)
    config.add_argument("--config")
    file = config.parse_known_args(argv)[0].config
    if file is not None:
        parser.set_defaults(**_read_yaml(file, dataclass_types))
    *parsed, _ = parser.parse_args_into_dataclasses(args=argv)
    return tuple(parsed)


def _read_yaml(file: str, dataclass_types: Sequence[type]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"You passed --config {file}, which cannot be read ({error.strerror}).") from error
    known = {entry.name for cls in dataclass_types for entry in fields(cls) if entry.init}
    unknown = sorted(set(values) - known)
    if unknown:
        import difflib

        near = {key: difflib.get_close_matches(key, known, 1) for key in unknown}
        hints = ", ".join(f"{key} (did you mean {match[0]}?)" if match else key for key, match in near.items())
        raise ValueError(f"{file} has keys that are no options: {hints}. See --help for all options.")
    return {key: _resolve(value, str(Path(file).parent)) for key, value in values.items()}


def _resolve(value: Any, folder: str) -> Any:
    """Text with `{config_dir}` replaced by the file's own folder, so that a file can name its neighbours."""
    if isinstance(value, list):
        return [_resolve(entry, folder) for entry in value]
    return value.replace("{config_dir}", folder) if isinstance(value, str) else value


def _check_choice(name: str, value: str, choices) -> None:
    if value not in choices:
        raise ValueError(f"You passed {name}={value!r}, which there is not. Choose one of {sorted(choices)}.")


def _check_radius(name: str, value: str | float | None, norm: str) -> None:
    if value is not None and parse_radius(value, norm) <= 0:
        raise ValueError(f"You passed {name}={value}, which leaves no room for an attack. Pass a radius above 0.")
