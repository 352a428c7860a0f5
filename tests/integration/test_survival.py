"""Whatever kills training, and whenever: the resumed run ends as if nothing had happened."""

import json
import subprocess
import sys

import pytest
from support.launch import environment
from support.paths import TESTS

CHAOS = TESTS / "support" / "chaos.py"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_twenty_random_kills_change_nothing(tmp_path, processes):
    command = [sys.executable, str(CHAOS), str(tmp_path / "chaos"), "--kills", "20", "--processes", str(processes)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    story = json.loads(done.stdout.splitlines()[-1])
    print(story)
    assert story["processes"] == processes and len(story["kills"]) == 20
    assert all(story["same"].values()) and len(story["same"]) == 4
    assert {"all", "while saving", "sigterm"} <= set(story["kills"]) and story["cut_off_checkpoints"] > 0
    assert max(story["newest"]) > 0 and story["newest"] == sorted(story["newest"])
