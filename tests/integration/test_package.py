"""The wheel works outside the checkout, and the README's quick start with it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the unpacked wheel and nothing else of the checkout but the examples that the README names."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "hf_pmgaft"):
        (source / name).symlink_to(ROOT / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_wheel_holds_the_package_and_its_data_and_nothing_else(site):
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "hf_pmgaft"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    inside = {str(p.relative_to(site / "site")) for p in (site / "site" / "hf_pmgaft").rglob("*") if p.is_file()}
    assert inside == set(tracked.stdout.split())
    assert {p.name.split("-")[0] for p in (site / "site").iterdir()} == {"hf_pmgaft"}


def test_quick_start_of_the_readme_runs_from_the_wheel(site):
    (code,) = re.findall(r"## Quick start\n+```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    code = code.replace("max_steps=20", "max_steps=2, use_cpu=True")
    code += "\nimport hf_pmgaft; print(hf_pmgaft.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site / "site"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=site, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(site / "site") in done.stdout
    assert (site / "clip-pmgaft" / "model.safetensors").exists()


def test_importing_the_package_does_not_import_torch():
    code = "import sys, hf_pmgaft; print('torch' in sys.modules, hf_pmgaft.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_neither_arguments_nor_help_bring_in_what_only_the_work_needs(tmp_path):
    code = """
import runpy, sys

def seen():
    late = {"datasets", "evaluate", "matplotlib", "pandas", "pyautoattack", "sklearn", "transformers.trainer"}
    print(*sorted(late & set(sys.modules)), sep=",", file=sys.stderr)

from hf_pmgaft import config
config.PMGAFTConfig(output_dir=sys.argv[1], use_cpu=True)
seen()
for name in ("run_pmgaft", "evaluate_robustness", "gallery", "attack_llava", "convert", "benchmark"):
    sys.argv = [name, "--help"]
    try:
        runpy.run_path(f"examples/{name}.py", run_name="__main__")
    except SystemExit as done:
        assert not done.code
    seen()
import hf_pmgaft.training.trainer
seen()
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    *arguments_and_help, work = done.stderr.splitlines()[-8:]
    assert arguments_and_help == [""] * 7
    assert {"datasets", "transformers.trainer"} <= set(work.split(","))  # which is how it would be seen


def test_every_public_name_is_there():
    import hf_pmgaft

    for name in hf_pmgaft.__all__:
        assert getattr(hf_pmgaft, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_pmgaft.nothing
