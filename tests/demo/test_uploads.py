"""The folder of a page: its own, gone at the end, and at the next start where the page was killed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.paths import ROOT

from hf_pmgaft.demo.uploads import LOCK, PLACE, PREFIX, remove_abandoned_folders, upload_folder

HOLDER = """
import signal, sys, time
from hf_pmgaft.demo.uploads import upload_folder
from hf_pmgaft.signals import catching_signals, raise_stop
try:
    with catching_signals(raise_stop), upload_folder() as folder:
        (folder / "cat.png").write_bytes(b"cat")
        print(folder, flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    pass
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def hold(temporary: Path) -> tuple[subprocess.Popen, Path]:
    """Another process with a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment)
    return process, Path(process.stdout.readline().strip())


def test_the_folder_is_for_its_user_alone_and_gone_at_the_end(monkeypatch):
    monkeypatch.setenv(PLACE, "before")
    with upload_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.name.startswith(f"{PREFIX}{os.getpid()}-")
        assert os.environ[PLACE] == str(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "cat.png").write_bytes(b"cat")
    assert not folder.exists() and os.environ[PLACE] == "before"


def test_it_is_gone_after_an_error():
    with pytest.raises(ValueError), upload_folder() as folder:
        raise ValueError
    assert not folder.exists() and PLACE not in os.environ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_page_leaves_no_folder(temporary, number):
    process, folder = hold(temporary)
    assert (folder / "cat.png").exists()
    process.send_signal(number)
    process.wait(timeout=60)
    assert not folder.exists()


def test_the_folder_of_a_killed_page_is_removed_by_the_next_and_one_in_use_is_not(temporary):
    running, used = hold(temporary)
    killed, left = hold(temporary)
    killed.kill()
    killed.wait()
    assert left.exists()
    with upload_folder():
        assert not left.exists() and (used / "cat.png").exists()
    running.terminate()
    running.wait(timeout=60)


def test_what_is_not_of_a_page_is_left_alone(temporary):
    others = [temporary / "pmgaft-demo-x-y", temporary / "pmgaft-demo-1", temporary / f"{PREFIX}999999999-file"]
    others[0].mkdir()
    others[1].mkdir()
    others[2].touch()
    target = temporary / "target"
    target.mkdir()
    link = temporary / f"{PREFIX}999999999-link"
    link.symlink_to(target)
    assert remove_abandoned_folders() == []
    assert all(path.exists() for path in [*others, target, link])


def test_an_old_folder_under_the_number_of_this_process_is_removed(temporary):
    old = temporary / f"{PREFIX}{os.getpid()}-old"
    old.mkdir()
    (old / LOCK).touch()
    with upload_folder() as folder:
        assert folder.exists() and not old.exists()
