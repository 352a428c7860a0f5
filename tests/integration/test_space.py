"""The folder of a Space, with the wheel beside it, in an empty environment: it installs, starts and shows the page."""

import http.server
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.build import build_wheel, copy_of_the_checkout
from support.environments import install, make_environment, variables
from support.paths import EXAMPLES, ROOT

import hf_pmgaft

SPACE = EXAMPLES / "space"
SECONDS = 180  # until the page must be there
README = (SPACE / "README.md").read_text(encoding="utf-8")


def metadata() -> dict:
    """What the Hub reads of the README."""
    return yaml.safe_load(README.split("---")[1])


def test_the_metadata_names_what_is_there():
    values = metadata()
    assert values["sdk"] == "gradio" and values["license"] == "apache-2.0"
    assert len(values["short_description"]) <= 60 and len(values["emoji"]) <= 2
    app = (SPACE / values["app_file"]).read_text(encoding="utf-8")
    assert len(app.strip().splitlines()) <= 3


def test_its_gradio_is_one_that_the_package_takes():
    (text,) = re.findall(r'extras\["demo"\] = \["(gradio[^"]*)"\]', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert Requirement(text).specifier.contains(metadata()["sdk_version"])


def test_its_lines_name_the_wheel_of_this_version():
    wheel = f"hf_pmgaft-{hf_pmgaft.__version__}-py3-none-any.whl"
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8") == f"./{wheel}[demo]\n"
    assert f"/resolve/main/{wheel}\n" in README


# ---- As it is pushed ----


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> tuple[Path, Path]:
    """The folder as it is pushed, the wheel beside it, and an environment with what it asks for."""
    folder = tmp_path_factory.mktemp("space")
    pushed = folder / "pushed"
    shutil.copytree(SPACE, pushed)
    (folder / "wheel").mkdir()
    shutil.copy(build_wheel(copy_of_the_checkout(folder), folder / "wheel"), pushed)
    environment = make_environment(folder)
    install(environment, ["-r", "requirements.txt"], pushed)
    return pushed, environment


@pytest.fixture
def page(space, tmp_path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The running app, and its address, as a Space sets it."""
    pushed, environment = space
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path)}
    app = subprocess.Popen(
        [environment / "bin" / "python", metadata()["app_file"]], cwd=pushed, env=variables(tmp_path, **values)
    )
    try:
        yield app, f"http://127.0.0.1:{port}"
    finally:
        app.kill()
        app.wait()


@pytest.mark.slow
def test_the_page_of_a_space_opens_and_leaves_nothing_behind(page, tmp_path):
    app, address = page
    text = loaded(app, address)
    assert (
        "Adversarial images" in text and "embedded CLIP" in urllib.request.urlopen(f"{address}/config").read().decode()
    )
    assert list(tmp_path.glob("pmgaft-demo-*"))
    app.send_signal(signal.SIGTERM)
    app.wait(60)
    assert not list(tmp_path.glob("pmgaft-demo-*"))


def loaded(app: subprocess.Popen, address: str) -> str:
    """The page, as soon as it is there."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert app.poll() is None, f"app.py ended with {app.returncode}"
        try:
            return urllib.request.urlopen(address).read().decode()
        except urllib.error.URLError:
            time.sleep(1)
    pytest.fail(f"there was no page within {SECONDS} seconds")


@pytest.mark.slow
def test_pip_takes_the_wheel_by_its_address_too(space):
    pushed, environment = space
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=pushed)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (line,) = re.findall(r"^hf_pmgaft\[demo\] @ https://\S+$", README, re.M)
        line = re.sub(r"https://.*/resolve/main", f"http://127.0.0.1:{server.server_port}", line)
        (pushed / "by_address.txt").write_text(line)
        install(environment, ["--dry-run", "--no-deps", "--force-reinstall", "-r", "by_address.txt"], pushed)
        server.shutdown()
