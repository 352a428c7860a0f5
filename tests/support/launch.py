"""Python processes that see what the tests see."""

import os
import subprocess
import sys
from pathlib import Path

from support.paths import EXAMPLES, ROOT, TESTS


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that imports the package, the examples and what supports the tests."""
    path = os.pathsep.join([*map(str, (ROOT, TESTS, EXAMPLES)), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def torchrun(processes: int, script: str | Path, *arguments: object, timeout: int = 600) -> None:
    """Runs a script on several processes, and fails with what they wrote if one of them does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [str(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-6000:]
