"""The wheel works outside the checkout, the README's quick start with it, and help comes quickly."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.build import build_sdist, build_wheel, copy_of_the_checkout, files_of_the_package
from support.paths import ROOT

from hf_pmgaft.cli import COMMANDS

LATE = {"datasets", "evaluate", "matplotlib", "pandas", "pyautoattack", "sklearn", "transformers.trainer"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_of_the_checkout(folder), folder)


@pytest.fixture(scope="module")
def site(wheel) -> Path:
    """A folder with the unpacked wheel as `site`, and the examples that the README names."""
    folder = wheel.parent
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(site: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(site / "site"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=site, env=environment, capture_output=True, text=True)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}


def test_wheel_holds_the_package_and_its_data_and_nothing_else(wheel):
    assert names_in(wheel) == files_of_the_package()


def test_wheel_is_about_as_large_as_the_embedded_models_and_sets(wheel):
    assert 10e6 < wheel.stat().st_size < 19e6


@pytest.mark.slow
def test_a_wheel_made_of_the_source_distribution_is_the_same(wheel, tmp_path):
    source = build_sdist(copy_of_the_checkout(tmp_path), tmp_path)
    assert names_in(build_wheel(source, tmp_path)) == names_in(wheel)


def test_wheel_brings_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "pmgaft = hf_pmgaft.cli:main" in archive.read(entry_points).decode()


def test_embedded_model_and_sets_are_found_in_the_wheel(site):
    code = "from hf_pmgaft.embedded import emoji_folder; print(emoji_folder())"
    assert run(site, "-c", code).stdout.strip() == str(site / "site" / "hf_pmgaft" / "emoji")


def test_embedded_model_and_sets_are_found_in_the_checkout():
    from hf_pmgaft.embedded import emoji_folder

    assert emoji_folder() == ROOT / "examples" / "emoji"


def test_embedded_llava_is_evaluated_from_the_wheel(site):
    flags = ["--num_images", "2", "--num_steps", "1", "--tasks", "targeted", "--targets", "warning"]
    done = run(site, "-m", "hf_pmgaft.cli", "attack-vlm", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "target 'warning'" in done.stdout


def test_quick_start_of_the_readme_runs_from_the_wheel(site):
    (code,) = re.findall(r"## Quick start\n+```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    code = code.replace("max_steps=20", "max_steps=2, use_cpu=True")
    code += "\nimport hf_pmgaft; print(hf_pmgaft.__file__)"
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert str(site / "site") in done.stdout
    assert (site / "clip-pmgaft" / "model.safetensors").exists()


def test_importing_the_package_does_not_import_torch():
    code = "import sys, hf_pmgaft; print('torch' in sys.modules, hf_pmgaft.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def seen_late(code: str, *arguments: object) -> list[set[str]]:
    """What of `LATE` is imported each time the code calls `seen()`."""
    code = f"import sys\ndef seen(): print(*sorted({LATE} & set(sys.modules)), sep=',', file=sys.stderr)\n{code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if not line or set(line.split(",")) <= LATE]
    return [set(line.split(",")) - {""} for line in lines]


def test_help_of_every_part_brings_in_nothing_that_only_the_work_needs():
    code = f"""
from hf_pmgaft import cli
for command in {list(COMMANDS)}:
    try:
        cli.main([command, "--help"])
    except SystemExit as done:
        assert not done.code
    seen()
"""
    assert seen_late(code) == [set()] * len(COMMANDS)


def test_neither_arguments_nor_the_benchmarks_help_bring_in_what_only_the_work_needs(tmp_path):
    code = """
import runpy
from hf_pmgaft import config
config.PMGAFTConfig(output_dir=sys.argv[1], use_cpu=True)
seen()
sys.argv = ["benchmark", "--help"]
try:
    runpy.run_path("examples/speed/benchmark.py", run_name="__main__")
except SystemExit as done:
    assert not done.code
seen()
import hf_pmgaft.training.trainer
seen()
"""
    arguments, help_, work = seen_late(code, tmp_path)
    assert not arguments and not help_
    assert {"datasets", "transformers.trainer"} <= work  # which is how it would be seen
