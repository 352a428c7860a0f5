"""Empty virtual environments, and commands that run in them as if there were no checkout."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

TORCH = os.environ.get("TORCH") or f"torch=={torch.__version__.partition('+')[0]}"


def make_environment(folder: Path) -> Path:
    """A virtual environment in `folder/venv` with torch and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install(folder / "venv", [TORCH])
    return folder / "venv"


def install(environment: Path, arguments: Sequence[str], folder: Path | None = None) -> None:
    """What pip installs, as called in a folder."""
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *arguments], check=True, cwd=folder)


def variables(folder: Path, **values: str) -> dict[str, str]:
    """The environment variables of a command: no checkout, no Hub, and a home in that folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home"), **values}


def run(command: Sequence[str | Path], folder: Path) -> str:
    """What a command prints in a folder."""
    done = subprocess.run(command, cwd=folder, env=variables(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
