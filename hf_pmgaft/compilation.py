"""What torch.compile needs, looked for before anything is computed, and its modes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

# Those of torch.compile, and which of them replay their kernels as CUDA graphs on a GPU.
COMPILE_MODES = ("default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead")
CUDA_GRAPHS = ("max-autotune", "reduce-overhead")


def check_compiler(option: str, device: str) -> None:
    """Raises `ValueError` where torch.compile finds no compiler for its code: of C++ for a CPU, Triton for a GPU.

    Args:
        option (`str`): What asks for it, for the message.
        device (`str`): `"cpu"`, `"cuda"` or another type of device, of which nothing is known.

    Example:
        >>> check_compiler("torch_compile", "mps")
    """
    if device == "cpu":
        default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", default)
        is_there = shutil.which(compiler) is not None
        what, install = f"the C++ compiler {compiler}", "Install one (`apt install g++`), name yours in CXX"
    elif device == "cuda":
        is_there = importlib.util.find_spec("triton") is not None
        what, install = "Triton", "Run `pip install triton`"
    else:
        return
    if not is_there:
        raise ValueError(
            f"You passed {option}, but {what}, which it compiles with on this device, is not there. {install}, "
            f"or leave {option} out."
        )
