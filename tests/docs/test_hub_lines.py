"""Every command line of the pages that names a model or a set of the Hub runs as it is printed, at two steps."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from support.hub_server import own_hub
from support.pages import PAGES, lines, name_of
from support.paths import EMOJI, ROOT
from support.recipes import BASE, make_clip, put_all

from hf_pmgaft import PMGAFTConfig, cli, to_open_clip
from hf_pmgaft.data import load_images
from hf_pmgaft.demo.bench import Bench
from hf_pmgaft.demo.settings import Settings
from hf_pmgaft.hub.card import model_card
from hf_pmgaft.objectives import make_objective
from hf_pmgaft.tuning import make_tuning

OF_HUB = re.compile(r"--recipe|openai/|user/|you/|llava-hf/|--run |mine\.yaml|fare_eps_2\.pt")
SCRIPTS = {"train": "examples/run_pmgaft.py", "evaluate": "examples/evaluate_robustness.py"}
TRAIN = ["--max_steps", "2", "--use_cpu", "--dataloader_num_workers", "0", "--report_to", "none"]
TRAIN += ["--overwrite", "true"]
OF_RECIPE = ["--limit", "2", "--total_train_batch_size", "8"]
VLM = ["--num_images", "2", "--num_steps", "2"]
VLM_TARGETS = ["--targets", "send your money now"]
PAGES_OF_HUB = [page for page in PAGES if any(OF_HUB.search(line) for line in lines(page))]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with the models and sets of the pages, to which `you` and `user` push; a folder of one's own files."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "examples").symlink_to(ROOT / "examples")
        patch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # which --bf16 sets for all that follows
        with own_hub(patch, folder) as server:
            put_all(server, layers=2)
            put_others(server)
            for repo in server.repos.values():
                repo.granted.add("you")
            yield server


def put_others(hub) -> None:
    """What the pages call the reader's own, and models that none of the recipes names."""
    hub.tokens["hf_you"] = ("you", "write")
    own = files_of(EMOJI / "model")
    how = {"objective": make_objective("pmg_aft"), "tuning": make_tuning("vision_tower"), "licence": "mit"}
    config = PMGAFTConfig(output_dir="clip-pmgaft", use_cpu=True)
    card = model_card(base_model=BASE, config=config, **how)  # whose figures come later
    hub.put("you/clip-pmgaft", {**own, "README.md": str(card).encode()})
    hub.put("llava-hf/llava-1.5-7b-hf", files_of(EMOJI / "llava"))
    hub.put("user/clip-pmgaft", own)
    hub.put("user/robust-clip-vit-large-patch14-336", own)
    hub.put("openai/clip-vit-large-patch14-336", own)  # that of its LLaVA

    images = load_images(str(EMOJI / "data"), "animals", "test").select(range(8))
    images.push_to_hub("user/birds", split="test")
    captions = datasets.Dataset.from_dict(
        {
            "image": images["image"],
            "captions": [["an animal", "a picture of an animal"]] * len(images),
            "question": ["What is this?"] * len(images),
            "answers": [[{"answer": "an animal"}]] * len(images),
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "captions": [datasets.Value("string")],
                "question": datasets.Value("string"),
                "answers": [{"answer": datasets.Value("string")}],
            }
        ),
    )
    captions.push_to_hub("user/coco-captions", split="validation")
    put_questions(images["image"])
    pets = images.cast_column("label", datasets.Value("int64"))
    pets.to_parquet("my_pets.parquet")
    Path("pets.txt").write_text("\n".join(images.features["label"].names) + "\n", encoding="utf-8")
    large, _ = make_clip(layers=2, width=48, patch_size=16)
    torch.save(to_open_clip(large), "fare_eps_2.pt")


def put_questions(pictures: list) -> None:
    """Puts questions of POPE's and ScienceQA's kinds on the Hub."""
    labels = ["yes", "no"] * 4
    pope = {"image": pictures, "question": ["Is it a cat?"] * 8, "answer": labels, "category": ["popular"] * 8}
    datasets.Dataset.from_dict(pope).push_to_hub("user/pope", split="test")
    choices = [["red", "blue"]] * 8
    science = {"image": pictures, "question": ["Which?"] * 8, "choices": choices, "answer": [0, 1] * 4}
    datasets.Dataset.from_dict(science).push_to_hub("user/science-qa", split="test")


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_OF_HUB, ids=name_of)
def test_lines_that_name_the_hub_run_as_they_are_printed(hub, page, monkeypatch):
    for line in lines(page):
        if OF_HUB.search(line):
            monkeypatch.setenv("HF_TOKEN", "hf_you" if "you/" in line else "hf_ownerSecretDistinct")
            monkeypatch.setattr("hf_pmgaft.demo.launch", open_models_and_sets)
            run(line, monkeypatch, hub)


def open_models_and_sets(*, host, port, share, **settings) -> None:
    """What the page does before it is served, which needs no Gradio."""
    bench = Bench(Settings(**settings))
    for name in bench.names_of_sets:
        bench.draw(name)


def test_pages_have_lines_of_the_hub():
    found = [line for page in PAGES_OF_HUB for line in lines(page) if OF_HUB.search(line)]
    assert len(found) > 12 and any("llava-hf/" in line for line in found)


def run(line: str, monkeypatch, hub) -> None:
    """Runs a line at two steps and on few images, in this process, whatever it is started by."""
    words = shlex.split(line, comments=True)
    output = None
    if ">" in words:
        words, output = words[: words.index(">")], words[-1]

    script = next((name for name in words if name in SCRIPTS.values()), None)
    if script is not None:  # behind `accelerate launch` or `python`
        words = words[words.index(script) :]
        command = next(name for name, file in SCRIPTS.items() if file == script)
    else:
        program, command, *_ = words
        assert program == "pmgaft", line
        words = words[1:]
    words += small(command, words)

    if command == "few-shot" and "--show_grid" not in words:  # rows are processes, which know a Hub by environment
        environment = {**os.environ, **hub.environment(Path.cwd(), os.environ["HF_TOKEN"]), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "hf_pmgaft.cli", *words], env=environment, check=True)
        return
    with contextlib.ExitStack() as stack:
        if output is not None:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(output, "w"))))
        if script is None:
            cli.main(words)
        else:
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(str(ROOT / script), run_name="__main__")


def vlm(words: list[str]) -> list[str]:
    """Flags that make a line about a vision-language model small."""
    flags = VLM + (VLM_TARGETS if "--tasks" not in words or "targeted" in words else [])
    return [*flags, "--target_steps", "2"] if "--protocol" in words else flags


def small(command: str, words: list[str]) -> list[str]:
    """Flags that make a line's work small; the last of two values of a flag counts."""
    if command == "reproduce":
        return [*TRAIN, *OF_RECIPE] if "--run" in words else []
    if command == "attack-vlm":
        return vlm(words)
    if command == "train":
        has_recipe = "--recipe" in words or "mine.yaml" in words
        return [*TRAIN, *(OF_RECIPE if has_recipe else ["--eval_max_samples", "2"])]
    if command == "few-shot" and "--show_grid" not in words:
        few = ["--methods", "tecoa", "--shots", "1", "--seeds", "0", "--max_samples", "2"]
        return few if "--grid" in words else [*few, "--sets", "dtd"]
    if command == "evaluate" and "--report" not in words:
        return ["--limit" if "--suite" in words else "--max_samples", "2"]
    return []
