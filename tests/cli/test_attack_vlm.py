"""The attack on what a LLaVA writes, as a user runs it: table, report, resumption and errors."""

import functools
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from support.llava import equal_weights
from support.paths import EMOJI
from support.tiny import make_images
from transformers import CLIPModel, LlavaForConditionalGeneration, LlavaProcessor

from hf_pmgaft import VisionLanguageModel, attack_answers, vision_tower
from hf_pmgaft.cli import attack_vlm, emoji_questions
from hf_pmgaft.cli.emoji_questions import DESCRIBE, GROUP, NAME
from hf_pmgaft.downstream import answer_pgd, vlm
from hf_pmgaft.downstream.answer_attacks import PgdAttack
from hf_pmgaft.downstream.encoder_attack import attack_encoder
from hf_pmgaft.noise import sample_seeds


@pytest.fixture(scope="module", autouse=True)
def rows_are_read_once():
    """Which takes most of the time of a small run."""
    load = emoji_questions.load_rows
    emoji_questions.load_rows = functools.cache(load)
    yield
    emoji_questions.load_rows = load


@pytest.fixture(scope="module")
def llava() -> VisionLanguageModel:
    model = LlavaForConditionalGeneration.from_pretrained(EMOJI / "llava")
    return VisionLanguageModel(model, LlavaProcessor.from_pretrained(EMOJI / "llava"))


@pytest.fixture(scope="module")
def robust(tmp_path_factory) -> str:
    """A CLIP of the same shape with another vision tower."""
    folder = tmp_path_factory.mktemp("clip")
    model = CLIPModel.from_pretrained(EMOJI / "model")
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder)
    return str(folder)


SMALL = ["--num_images", "3", "--num_steps", "4", "--eps", "4/255", "2/255", "--tasks", "targeted", "vqa"]


def report_of(folder, *flags) -> dict:
    file = folder / "report.json"
    attack_vlm.main([*SMALL, *flags, "--output_file", str(file)])
    return json.loads(file.read_text())


def test_every_tower_is_reported_and_the_rest_of_the_model_left_alone(robust, tmp_path, capsys, monkeypatch):
    kept, load = [], vlm.load_vlm

    def load_vlm(*args):
        kept.append(load(*args))
        return kept[0]

    monkeypatch.setattr(vlm, "load_vlm", load_vlm)
    report = report_of(tmp_path, "--towers", robust, "--gallery", str(tmp_path / "seen.png"))

    name, printed = Path(robust).name, capsys.readouterr().out
    assert list(report["towers"]) == ["own tower", name] and name in printed and "PGD-4 in L-inf" in printed
    own, other = report["towers"].values()
    assert list(own) == ["target 'warning'", "target 'money bag'", NAME, GROUP]
    for cells in own.values():
        assert list(cells) == ["clean", "2/255", "4/255"]  # smaller radii first, and never kinder
        worst = [cell["worst_scores"] for cell in cells.values()]
        assert all(
            a >= b for more, less in zip(worst, worst[1:], strict=False) for a, b in zip(more, less, strict=True)
        )
    assert own[NAME]["clean"]["texts"] != other[NAME]["clean"]["texts"]
    assert report["protocol"]["attack"]["num_steps"] == 4 and report["protocol"]["dtype"] == "float32"
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG"
    # The model ends with the other tower in, and nothing else has changed.
    before = LlavaForConditionalGeneration.from_pretrained(EMOJI / "llava").state_dict()
    changed = {key for key, value in kept[0].model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all("vision_tower" in key for key in changed)
    assert equal_weights(CLIPModel.from_pretrained(robust).vision_model, vision_tower(kept[0].model))


def test_texts_are_those_about_the_rounded_image(tmp_path, llava):
    report = report_of(tmp_path, "--tasks", "vqa")
    args = attack_vlm.parse([*SMALL, "--tasks", "vqa"])
    rows, images, tasks = attack_vlm.load_tasks(args, llava)
    images = torch.stack(images)
    seeds = sample_seeds(0, 0, torch.tensor(rows))
    for task in tasks:
        cells = report["towers"]["own tower"][task.name]
        assert cells["clean"]["texts"] == llava.write(images, task.questions)
        found = attack_answers(llava, images, task.questions, task.answers, eps="2/255", num_steps=4, seeds=seeds)
        for text, now in zip(cells["2/255"]["texts"], llava.write(found, task.questions), strict=True):
            assert text in (None, now)  # an image that was wrong before is not attacked


def test_the_tower_alone_is_attacked_whatever_is_asked(tmp_path, llava, capsys):
    file = tmp_path / "report.json"
    flags = ["--num_images", "3", "--num_steps", "4", "--eps", "4/255", "--output_file", str(file)]
    attack_vlm.main([*flags, "--attack", "encoder"])
    report = json.loads(file.read_text())
    assert "PGD-4 on the tower alone in L-inf" in capsys.readouterr().out
    assert report["protocol"]["attack"]["attack"] == "encoder"
    assert "squared L2 distance" in report["protocol"]["attack"]["loss"]
    assert not any(name.startswith("target") for name in report["towers"]["own tower"])

    args = attack_vlm.parse([*flags, "--attack", "encoder"])
    rows, images, tasks = attack_vlm.load_tasks(args, llava)
    found = attack_encoder(
        llava, torch.stack(images), eps="4/255", num_steps=4, seeds=sample_seeds(0, 0, torch.tensor(rows))
    )
    for task in tasks:
        cells = report["towers"]["own tower"][task.name]["4/255"]
        for text, now in zip(cells["texts"], llava.write(found, task.questions), strict=True):
            assert text in (None, now)

    with pytest.raises(SystemExit, match="--attack encoder with the task targeted"):
        attack_vlm.main([*flags, "--attack", "encoder", "--tasks", "targeted"])


def test_figures_do_not_depend_on_the_batch_nor_on_a_kill(robust, tmp_path, monkeypatch):
    flags = ["--tasks", "vqa", "--eps", "4/255"]
    whole = report_of(tmp_path, *flags, "--towers", robust)
    assert report_of(tmp_path, *flags, "--towers", robust, "--batch_size", "1") == whole
    texts = tmp_path / "texts.jsonl"
    flags += ["--verdict_file", str(texts)]
    assert report_of(tmp_path, *flags) != whole  # one tower, another is added
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join(lines[:-2]) + lines[-2][:20])
    attacked = []
    attack = PgdAttack.run

    def recorded(self, asked, eps, lots, clean):
        lots = [list(lot) for lot in lots]
        attacked.extend(len(lot) for lot in lots)
        return attack(self, asked, eps, lots, clean)

    monkeypatch.setattr(PgdAttack, "run", recorded)
    assert report_of(tmp_path, *flags, "--towers", robust) == whole
    assert 0 < sum(attacked) < 2 * 2 * 3  # tasks, towers and images
    with pytest.raises(SystemExit, match="differs in protocol.attack"):
        report_of(tmp_path, *flags, "--momentum", "0.9")


def test_a_set_of_ones_own_brings_captions_questions_and_answers(tmp_path):
    images = make_images(4)
    data = Dataset.from_dict(
        {
            "image": list(images["image"]),
            "captions": [["a red disc", "a disc"], ["a green disc"], ["a square"], ["a yellow square"]],
            "question": ["what is it called?"] * 4,
            "answers": [[{"answer": "disc"}, {"answer": "red disc"}]] * 4,
        }
    )
    data.to_parquet(tmp_path / "set.parquet")

    flags = [
        "--eval_set",
        str(tmp_path / "set.parquet"),
        "--caption_column",
        "captions",
        "--question_column",
        "question",
    ]
    flags += ["--answer_column", "answers.answer", "--targets", "cat", "--prompt", DESCRIBE, "--num_steps", "1"]
    report = report_of(tmp_path, *flags, "--tasks", "targeted", "caption", "vqa")

    cells = report["towers"]["own tower"]
    assert list(cells) == ["target 'cat'", "caption", "vqa"]
    assert 0 <= cells["caption"]["4/255"]["chrf"] <= cells["caption"]["clean"]["chrf"] < 0.9

    with pytest.raises(SystemExit, match="no answer|no caption"):
        broken = data.remove_columns("captions").add_column("captions", [["a"], [], ["b"], ["c"]])
        broken.to_parquet(tmp_path / "set.parquet")
        report_of(tmp_path, *flags, "--tasks", "targeted", "caption", "vqa")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--num_images", "0"], "num_images=0, which leaves nothing to do"),
        (["--eps", "4"], "write 4/255"),
        (["--targets", ""], "empty target"),
        (["--targets", "cat " * 40], "is to write at most 30"),
        (["--targets", "cat " * 80, "--max_new_tokens", "90"], "longer than the model's context"),
        (["--model", str(EMOJI / "model")], "is a clip, but the attack goes through the language model"),
        (["--model", "nowhere"], "error: "),
        (["--image_options", '{"do_resize": false}'], "images come at the tower's size"),
        (["--towers", str(EMOJI / "llava"), str(EMOJI / "llava")], "a tower twice"),
        (["--targets", str(EMOJI / "model" / "config.json")], "holds no list of targets"),
        (["--towers", "SMALLER"], "does not fit"),
        (["--eval_set", "nowhere.parquet"], "error: "),
    ],
)
def test_what_cannot_work_ends_with_one_line_before_any_work(argv, message, monkeypatch, model, tmp_path):
    def working(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr(VisionLanguageModel, "write", working)
    monkeypatch.setattr(answer_pgd, "pgd", working)
    if "SMALLER" in argv:
        model.save_pretrained(tmp_path)
        argv = ["--towers", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        attack_vlm.main(argv)
    assert str(stopped.value.code).startswith("error: ") and message in str(stopped.value.code)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        attack_vlm.parse(["--help"])
    printed = capsys.readouterr().out
    assert "pmgaft attack-vlm --towers" in printed and "--targets" in printed
