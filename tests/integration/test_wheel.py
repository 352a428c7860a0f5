"""The wheel in an empty virtual environment, with no checkout, no Hub and no test tools beside it."""

import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from support.build import build_wheel, copy_of_the_checkout
from support.environments import install, make_environment, run
from support.paths import ROOT

pytestmark = pytest.mark.slow
QUICK = "--max_steps 4 --per_device_train_batch_size 16 --eval_max_samples 12 --eval_num_steps 3".split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of a virtual environment with torch, the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("empty")
    wheel = build_wheel(copy_of_the_checkout(folder), folder)
    environment = make_environment(folder)
    # Protocols name versions, and in the checkout an extra can hold back one of them, as Gradio does Pillow's.
    same = [f"{package}=={metadata.version(package)}" for package in ("transformers", "datasets", "pillow")]
    install(environment, [str(wheel), *same])
    return environment


@pytest.fixture
def pmgaft(installed, tmp_path):
    return lambda *arguments: run([installed / "bin" / "pmgaft", *arguments], tmp_path)


def table(printed: str) -> str:
    """The table of every set before and after."""
    start = printed.index("accuracy in %, clean and robust")
    return printed[start : printed.index("the other sets are zero-shot")]


def test_training_without_arguments_prints_the_table_of_the_checkout_s_demo(pmgaft, tmp_path):
    printed = pmgaft("train", *QUICK)
    assert "mean without animals*" in printed and "PGD-3 margin linf 4/255" in printed
    (tmp_path / "checkout").mkdir()
    demo = run([sys.executable, ROOT / "examples" / "run_pmgaft.py", *QUICK], tmp_path / "checkout")
    assert table(printed) == table(demo)
    assert (tmp_path / "outputs" / "clip-pmgaft-emoji" / "README.md").is_file()
    printed = pmgaft("evaluate", "--model", "outputs/clip-pmgaft-emoji", "--max_samples", "6", "--attacks", "fgsm")
    assert "smileys" in printed and "FGSM ce linf 4/255" in printed


def test_recipes_are_there(pmgaft):
    assert "tecoa" in pmgaft("recipes")
    assert "objective: tecoa" in pmgaft("recipes", "show", "tecoa")


def test_a_bug_report_says_what_is_not_installed(pmgaft):
    printed = pmgaft("env")
    assert f"- torch: {torch.__version__.partition('+')[0]}" in printed
    assert "- evaluate: not installed" in printed and "- pyautoattack: not installed" in printed


def test_one_picture_the_gallery_and_the_embedded_llava_work(pmgaft, tmp_path):
    pmgaft("attack", "--attack", "pgd,eps=4/255,num_steps=1")
    assert (tmp_path / "attacked" / "emoji-model.png").stat().st_size > 1000
    pmgaft("gallery", "--num_images", "1", "--num_steps", "1")
    assert (tmp_path / "gallery.png").stat().st_size > 1000
    flags = ["--num_images", "1", "--num_steps", "1", "--tasks", "targeted"]
    assert "target 'warning'" in pmgaft("attack-vlm", *flags)
