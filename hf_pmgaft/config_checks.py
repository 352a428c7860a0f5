"""What the fields of a `PMGAFTConfig` must be, each alone and several together. Nothing is loaded to find out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .attacks.ball import parse_factor, parse_radius, parse_step_size
from .attacks.options import training_attack, training_options, try_attack
from .attacks.pgd import check_reach
from .defences import Smoothing
from .objectives import Objective
from .registry import check_count

if TYPE_CHECKING:
    from .config import PMGAFTConfig

# What `attack_kwargs` cannot hold, since these have arguments of their own.
OWN_ARGUMENTS = {"eps", "norm", "num_steps", "step_size", "random_start"}

# ---- Single values ----


def check_json(name: str, value: Any) -> None:
    """Raises `ValueError` for a text that begins as a JSON object and is none.

    Example:
        >>> check_json("objective_kwargs", '{"alpha": 2.0}')
        >>> check_json("objective_kwargs", "{alpha: 2.0}")
        Traceback (most recent call last):
        ValueError: You passed objective_kwargs={alpha: 2.0}, which is no JSON (...). Write such as ...
    """
    if not (isinstance(value, str) and value.startswith("{")):
        return
    try:
        json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"You passed {name}={value}, which is no JSON ({error}). Write such as '{{\"alpha\": 2.0}}'."
        ) from error


def check_dict(name: str, value: Any) -> None:
    """Raises `ValueError` for options that are not named.

    Example:
        >>> check_dict("tuning_kwargs", {"blocks": 2})
        >>> check_dict("tuning_kwargs", [2])
        Traceback (most recent call last):
        ValueError: You passed tuning_kwargs=[2]. Pass a JSON object or a dict.
    """
    if not isinstance(value or {}, dict):
        raise ValueError(f"You passed {name}={value!r}. Pass a JSON object or a dict.")


def check_named_radius(name: str, value: str | float | None, norm: str, is_optional: bool) -> None:
    """Raises `ValueError` for a radius or length that is no positive number of the norm.

    Example:
        >>> check_named_radius("eps", "4/255", "linf", is_optional=False)
        >>> check_named_radius("eps", 0, "linf", is_optional=False)
        Traceback (most recent call last):
        ValueError: You passed eps=0, which leaves no room for an attack. Pass a radius above 0.
    """
    if value is None and is_optional:
        return
    try:
        radius = parse_radius(value, norm)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if radius <= 0:
        raise ValueError(f"You passed {name}={value}, which leaves no room for an attack. Pass a radius above 0.")


def check_sigma(name: str, value: str | float | None) -> None:
    """Raises `ValueError` for what is no standard deviation of a pixel's noise.

    Example:
        >>> check_sigma("noise_sigma", "0.25")
        >>> check_sigma("noise_sigma", 0)
        Traceback (most recent call last):
        ValueError: noise_sigma: You passed the factor 0, but it must be above 0. Pass such as 0.05.
    """
    if value is None:
        return
    try:
        Smoothing(None, sigma=value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def check_noise(noise_sigma: str | float | None, objective: Objective) -> None:
    """Raises `ValueError` for noise on images that are attacked, too.

    Example:
        >>> from hf_pmgaft.objectives import make_objective
        >>> check_noise("0.25", make_objective("clean"))
        >>> check_noise("0.25", make_objective("tecoa"))
        Traceback (most recent call last):
        ValueError: You passed noise_sigma=0.25 with the objective TeCoA, which makes adversarial images, ...
    """
    if noise_sigma is not None and objective.uses_attack:
        raise ValueError(
            f"You passed noise_sigma={noise_sigma} with the objective {type(objective).__name__}, which makes "
            "adversarial images, whose ball would be around noise. Pass objective='clean', or leave noise_sigma out."
        )


def check_step_size(args: PMGAFTConfig, name: str, count: str, eps: str) -> None:
    """Raises `ValueError` for a length of a step that is none, or by which the walk does not reach the radius.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> args = PMGAFTConfig(use_cpu=True, num_steps=2)
        >>> args.step_size = "1/2 eps"
        >>> check_step_size(args, "step_size", "num_steps", args.eps)
    """
    value = getattr(args, name)
    if value is None:
        return
    try:
        if name == "step_size" and args.attack == "shared":
            parse_factor(value)
            return
        if parse_step_size(value, parse_radius(eps, args.norm), args.norm) <= 0:
            raise ValueError(f"You passed {name}={value}, by which no walk moves on. Pass a length above 0.")
        if name != "step_size" or args.attack != "fgsm":  # whose one step is the radius
            check_optional_count(count, getattr(args, count), is_optional=False)
            check_reach(eps, args.norm, getattr(args, count), value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def check_optional_count(name: str, value: Any, is_optional: bool) -> None:
    """Raises `ValueError` for a count that is no whole number from 1.

    Example:
        >>> check_optional_count("eval_max_samples", None, is_optional=True)
    """
    if value is None and is_optional:
        return
    check_count(name, value)


def check_averages(ema_decay: float | None, wise_ft: float | None) -> None:
    """Raises `ValueError` for shares by which no weights can be averaged.

    Example:
        >>> check_averages(ema_decay=0.999, wise_ft=0.5)
        >>> check_averages(ema_decay=None, wise_ft=2)
        Traceback (most recent call last):
        ValueError: You passed wise_ft=2. Pass the tuned weights' share, above 0 to 1.
    """
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"You passed ema_decay={ema_decay}. Pass a number from 0 to below 1, such as 0.999.")
    if wise_ft is not None and not 0 < wise_ft <= 1:
        raise ValueError(f"You passed wise_ft={wise_ft}. Pass the tuned weights' share, above 0 to 1.")


# ---- Several values together ----


def check_attack(args: PMGAFTConfig) -> None:
    """Raises `ValueError` for options that the training attack does not have, or cannot work with.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> check_attack(PMGAFTConfig(use_cpu=True, attack_kwargs={"loss": "margin"}))
    """
    options = args.attack_kwargs or {}
    allowed = training_options(args.attack) - OWN_ARGUMENTS
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(
            f"Attack {args.attack!r} takes no {', '.join(unknown)} in attack_kwargs. It takes: {sorted(allowed)}; "
            "the radius and the steps have arguments of their own."
        )
    try:
        attack, options_of_attack = training_attack(args.attack, args.attack_options())
        try_attack(f"Attack {args.attack!r}", attack, options_of_attack)
    except ValueError as error:
        raise ValueError(
            f"Attack {args.attack!r} cannot take attack_kwargs={options} ({error}). Correct them."
        ) from error


def check_hub(args: PMGAFTConfig) -> None:
    """Raises `ValueError` where a push would fail for want of a token or a name, which would show after training.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> check_hub(PMGAFTConfig(use_cpu=True))  # nothing is pushed
    """
    if not args.push_to_hub:
        return
    from huggingface_hub import get_token

    if args.hub_token is not None and not re.fullmatch(r"[!-~]+", args.hub_token):
        # The HTTP library would print it in its error.
        raise ValueError(
            "You passed a hub_token with spaces, line ends or other characters that no token has. Copy it again."
        )
    if not (args.hub_token or get_token()):
        raise ValueError(
            "You passed push_to_hub=True, but there is no token to push with, which would be found only after "
            "training. Run `hf auth login`, set HF_TOKEN or pass hub_token."
        )
    if not (args.hub_model_id or Path(args.output_dir).name):
        raise ValueError("You passed push_to_hub=True without a name. Pass hub_model_id='user/clip-pmgaft'.")
