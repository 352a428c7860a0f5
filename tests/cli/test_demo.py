"""The command that opens the page: its options, what it needs, and how it ends."""

import os
import signal
import subprocess
import sys

import pytest
from support.paths import ROOT

from hf_pmgaft import cli
from hf_pmgaft.cli import demo


def test_without_options_it_listens_on_this_machine_with_the_embedded_models(monkeypatch):
    passed = {}
    monkeypatch.setattr("hf_pmgaft.demo.launch", lambda **options: passed.update(options))
    cli.main(["demo"])
    assert (passed["host"], passed["port"], passed["share"]) == (None, None, False)
    assert passed["models"] == passed["eval_sets"] == []
    assert (passed["max_steps"], passed["max_classes"]) == (200, 1000)
    assert (passed["max_pixels"], passed["max_upload"]) == (25_000_000, 32_000_000)


def test_limits_are_the_operators(monkeypatch):
    passed = {}
    monkeypatch.setattr("hf_pmgaft.demo.launch", lambda **options: passed.update(options))
    cli.main(["demo", "--max_megapixels", "0.5", "--max_megabytes", "2", "--max-steps", "7", "--models", "a", "b"])
    assert (passed["max_pixels"], passed["max_upload"], passed["max_steps"]) == (500_000, 2_000_000, 7)
    assert passed["models"] == ["a", "b"]


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match=r'^error: The page needs Gradio.*pip install "hf_pmgaft\[demo\]"$'):
        demo.main([])


@pytest.mark.parametrize("words", ["demo --max_steps 0", "demo --max_classes 1", "demo --models a a"])
def test_what_cannot_work_is_refused_before_gradio_is_asked_for(words, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match="^error: You passed"):
        cli.main(words.split())


def test_neither_the_package_nor_help_imports_gradio():
    code = "import sys, hf_pmgaft, hf_pmgaft.demo, hf_pmgaft.cli as cli\n"
    code += "try: cli.main(['demo', '--help'])\nexcept SystemExit: print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_page_is_open_until_it_is_terminated_and_leaves_nothing(tmp_path):
    pytest.importorskip("gradio")
    httpx = pytest.importorskip("httpx")  # which it brings
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hf_pmgaft.cli", "demo"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
    )
    lines = iter(process.stdout.readline, "")
    line = next(line for line in lines if line.startswith("The page is at "))
    address = line.split()[4]
    assert address.startswith("http://127.0.0.1:") and httpx.get(address).status_code == 200
    assert len(list(tmp_path.glob("pmgaft-demo-*"))) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert list(tmp_path.glob("pmgaft-demo-*")) == []
