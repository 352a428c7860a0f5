"""Options whose library or compiler is not installed: said when they are passed, not when all is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .compilation import check_compiler
from .registry import check_choice

if TYPE_CHECKING:
    from .config import PMGAFTConfig

# Optimizers of torch and transformers, which need nothing else.
BUILT_IN = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
# What is installed for a tracker, where that is not its name.
PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit"}


def check_installed(args: PMGAFTConfig) -> None:
    """Raises `ValueError` for a tracker, an optimizer, or a compilation whose library or compiler is not there.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> args = PMGAFTConfig(use_cpu=True)
        >>> args.report_to = ["wandbb"]
        >>> check_installed(args)
        Traceback (most recent call last):
        ValueError: ... 'wandbb'...
    """
    for tracker in args.report_to:
        check_tracker(tracker)
    check_optimizer(args)
    if args.torch_compile and args.torch_compile_backend in (None, "inductor"):
        check_compiler("torch_compile", args.device.type)


def check_tracker(name: str) -> None:
    """Raises `ValueError` for a tracker that there is not, or whose library is not installed.

    Example:
        >>> check_tracker("no_tracker")
        Traceback (most recent call last):
        ValueError: ... 'no_tracker'...
    """
    from transformers.integrations import integration_utils as trackers

    check_choice("report_to", name, list(trackers.INTEGRATION_TO_CALLBACK))
    available = trackers.get_available_reporting_integrations()
    if name in available or (name == "flyte" and trackers.is_flytekit_available()):
        return
    if name == "kubeflow":
        how = "which works inside a Kubeflow job alone. "
    else:
        package = PACKAGES.get(name, name)
        how = f"which is not installed, so that nothing could be logged there. Run `pip install {package}`, or "
    there = f" or one that is there: {', '.join(available)}" if available else ""
    raise ValueError(f"You passed report_to={name!r}, {how}pass none{there}.")


def check_optimizer(args: PMGAFTConfig) -> None:
    """Raises `ValueError` for an optimizer whose library is not installed.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> check_optimizer(PMGAFTConfig(use_cpu=True, optim="sgd"))
    """
    name = args.optim.value
    if name in BUILT_IN:
        return
    from transformers import Trainer

    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except (ImportError, ValueError) as error:
        # Others are of options beside it, or of the model, which is not there yet.
        if isinstance(error, ImportError) or "install" in str(error) or "import" in str(error):
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"You passed optim={name!r}, whose library is not there ({reason}). Install it, or pass another "
                "optimizer, such as adamw_torch."
            ) from error
