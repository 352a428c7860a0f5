"""Uploads by the real client to a Hub on loopback: which failures are tried again, and what is said of the others."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub_runs import run_of
from support.hub_server import READER, TOKEN
from support.paths import ROOT

from hf_pmgaft import load_model
from hf_pmgaft.hub.upload import push_error, why_no_push


@pytest.mark.parametrize("status", [None, 503])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/storage/"),
        ("POST", "/preupload/"),
        ("POST", "/commit/"),
        ("POST", "/validate-yaml"),
        ("POST", "/batch"),
    ],
)
def test_a_lost_line_or_a_server_error_is_tried_again(hub, tmp_path, impatient, method, path, status):
    trainer = run_of(tmp_path)
    hub.fail(method, path, status)
    trainer.push_to_hub()
    assert hub.faults[0].times == 0 and impatient
    load_model("user/clip")
    assert len(hub.repos["user/clip"].commits) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, tmp_path, impatient):
    trainer = run_of(tmp_path)
    lost = hub.fail("POST", "/commit/", 504, done=True)
    trainer.push_to_hub()
    assert lost.times == 0 and len(hub.repos["user/clip"].commits) == 2


@pytest.mark.parametrize(("status", "asked"), [(500, 3), (403, 1)])
def test_a_push_that_fails_for_good_keeps_the_checkpoint_and_says_how_to_push_it(
    hub, tmp_path, impatient, caplog, status, asked
):
    trainer = run_of(tmp_path)
    hub.fail("POST", "/commit/", status, times=1000)
    with pytest.raises(OSError, match="(?s)push to 'user/clip' failed.*Nothing is lost") as raised:
        trainer.push_to_hub()
    assert 1000 - hub.faults[0].times == asked
    load_model(str(tmp_path / "run"))

    hub.faults.clear()
    command = shlex.split(str(raised.value).splitlines()[-1])
    assert command[:3] == ["hf", "upload", "user/clip"]
    variables = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    variables |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "run" / "optimizer.pt").write_text("a pickle")
    command[0] = str(Path(sys.executable).with_name("hf"))
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "optimizer.pt" not in hub.repos["user/clip"].files
    load_model("user/clip")


@pytest.mark.parametrize(
    ("token", "name", "words"),
    [
        (TOKEN, "clip", None),
        (TOKEN, "user/clip", None),
        (TOKEN, "user/there", None),
        (TOKEN, "reader/clip", "the name is another user's"),
        (TOKEN, "reader/taken", "the name is another user's"),
        (TOKEN, "../x", "'../x'"),
        (READER, "reader/taken", "the token is for reading alone"),
        (READER, "reader/clip", "the token is for reading alone"),
        ("hf_expired", "user/clip", "does not take the token"),
    ],
)
def test_what_a_push_would_fail_with_is_known_beforehand_and_nothing_is_made(hub, token, name, words):
    hub.put("reader/taken", {})
    hub.put("user/there", {})
    error = push_error(name, token)
    if words is None:
        assert error is None
    else:
        assert words in why_no_push(error) and token not in str(error)
    assert set(hub.repos) == {"reader/taken", "user/there"}


def test_a_push_to_a_hub_that_cannot_be_reached_would_fail(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_no_push(push_error("user/clip", TOKEN)).startswith("the Hub cannot be reached (")
