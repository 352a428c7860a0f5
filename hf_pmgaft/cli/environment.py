"""Prints what a bug report needs: versions, platform and devices.

    pmgaft env

It names no user, no path and no token.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib import metadata

from .errors import one_line_errors
from .parser import make_parser

LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "evaluate",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "numpy",
    "pillow",
    "deepspeed",
    "pyautoattack",
)


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process: there are none."""
    return make_parser("env", __doc__, script).parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Prints the environment, a line for each fact, in Markdown."""
    parse(argv, script)
    for name, value in environment().items():
        print(f"- {name}: {value}")


def environment() -> dict[str, str]:
    """Versions, platform and devices by name."""
    from .. import __version__

    return {
        "hf_pmgaft": __version__,
        "python": platform.python_version(),
        **{name: version_of(name) for name in LIBRARIES},
        "platform": platform.platform(),
        **devices(),
    }


def version_of(library: str) -> str:
    """The installed version of a library."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def devices() -> dict[str, str]:
    """What torch can compute on."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "CUDA of torch": torch.version.cuda or "none",
        "GPUs": ", ".join(names) or "none",
        "MPS": "yes" if torch.backends.mps.is_available() else "no",
        "CPU threads of torch": str(torch.get_num_threads()),
    }
