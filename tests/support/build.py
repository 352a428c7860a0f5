"""Wheels of the checkout, built outside of it."""

import subprocess
import sys
import tarfile
from pathlib import Path

from support.paths import ROOT

# What `setup.py` puts beside the package.
EMOJI_PARTS = ("model", "llava", "data", "LICENSES")
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "hf_pmgaft", "examples")


def copy_of_the_checkout(folder: Path) -> Path:
    """A folder that links to what a build needs, so that it writes nothing into the checkout."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        (source / name).symlink_to(ROOT / name)
    return source


def build_wheel(source: Path, folder: Path) -> Path:
    """Builds a wheel with the build tools that are installed here."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(source: Path, folder: Path) -> Path:
    """Builds a source distribution and unpacks it."""
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=source, capture_output=True)
    (file,) = folder.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    return folder / file.name.removesuffix(".tar.gz")


def files_of_the_package() -> set[str]:
    """The files that a wheel is to hold: those of the package in git, and the embedded model and sets."""
    folders = ["hf_pmgaft", *(f"examples/emoji/{part}" for part in EMOJI_PARTS)]
    command = ["git", "ls-files", "-co", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    present = [file for file in listed if (ROOT / file).exists()]
    return {file.replace("examples/emoji/", "hf_pmgaft/emoji/") for file in present}
