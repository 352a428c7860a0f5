"""Scripts of `tests/cases`, each of which once showed a fault of a whole kind, and now has to end with RIGHT."""

import os
import subprocess
import sys

import pytest
from support.paths import ROOT

SCRIPTS = sorted((ROOT / "tests/cases").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_fault_of_its_kind_is_mended(script):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])}
    done = subprocess.run([sys.executable, script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "RIGHT", done.stdout + done.stderr
