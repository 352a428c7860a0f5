"""`pmgaft attack-vlm` by the Robust CLIP paper's own protocol, POPE and ScienceQA, and by two processes."""

import functools
import json

import pytest
from datasets import Dataset
from PIL import Image
from support.borders import outcomes
from support.launch import torchrun
from support.tiny import make_images

from hf_pmgaft.cli import attack_vlm, emoji_questions
from hf_pmgaft.cli.attack_vlm_protocol import TARGETS
from hf_pmgaft.downstream.pope import is_there
from hf_pmgaft.downstream.science_qa import choice_prompt
from hf_pmgaft.downstream.vlm import VisionLanguageModel

SMALL = ["--num_images", "3", "--num_steps", "1"]
ROBUST_CLIP = ["--protocol", "robust_clip", *SMALL, "--target_steps", "1", "--target_images", "2"]


@pytest.fixture(scope="module", autouse=True)
def rows_are_read_once():
    """Which takes most of the time of a small run."""
    load = emoji_questions.load_rows
    emoji_questions.load_rows = functools.cache(load)
    yield
    emoji_questions.load_rows = load


def report_of(folder, *flags) -> dict:
    file = folder / "report.json"
    attack_vlm.main([*flags, "--output_file", str(file)])
    return json.loads(file.read_text())


def test_the_papers_protocol_has_its_radii_scores_and_attack(tmp_path, capsys):
    report = report_of(tmp_path, *ROBUST_CLIP)
    protocol = report["protocol"]
    assert protocol["eps"] == ["2/255", "4/255"] and protocol["attack"]["attack"] == "ensemble"
    assert protocol["protocol"]["name"] == "robust_clip"
    assert set(protocol["protocol"]["changed"]) == {"num_images", "num_steps", "target_steps", "target_images"}
    assert protocol["tasks"]["caption"]["corpus"] == "references of the 3 evaluated images"
    assert (
        protocol["tasks"]["caption"]["left_below"] == 0.1 and "float32 in all runs" in protocol["attack"]["precision"]
    )
    assert protocol["tasks"]["what is it called?"]["cut"] is True

    cells = report["towers"]["own tower"]
    for task, figure in (
        ("caption", "cider_d"),
        ("what is it called?", "vqa_accuracy"),
        ("target 'warning'", "success"),
    ):
        of_radii = [cells[task][column] for column in ("clean", "2/255", "4/255")]
        worst = [result["worst_scores"] for result in of_radii]
        assert all(
            a >= b for more, less in zip(worst, worst[1:], strict=False) for a, b in zip(more, less, strict=True)
        )
        assert len(worst[0]) == (2 if figure == "success" else 3) and figure in of_radii[0]

    printed = capsys.readouterr().out
    assert "CIDEr-D (own tokenizer, 3 images)" in printed and "robust_clip with another num_images" in printed
    assert "by the bootstrap over images" in printed


def test_an_ensemble_that_was_killed_goes_on_where_it_was(tmp_path):
    texts = tmp_path / "texts.jsonl"
    flags = [*ROBUST_CLIP, "--tasks", "vqa", "--verdict_file", str(texts)]
    report, whole = report_of(tmp_path, *flags), texts.read_text()
    assert report_of(tmp_path, *flags) == report and texts.read_text() == whole  # nothing was written again

    lines = whole.splitlines(keepends=True)
    texts.write_text("".join(lines[:-3]) + lines[-3][:20])
    assert report_of(tmp_path, *flags) == report
    assert len(texts.read_text().splitlines()) == len(lines)


def test_pictures_show_what_the_ensemble_kept(tmp_path):
    report_of(tmp_path, *ROBUST_CLIP, "--tasks", "vqa", "--gallery", str(tmp_path / "seen.png"))
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG"


def test_without_changes_the_protocol_is_the_papers():
    args = attack_vlm.parse(["--protocol", "robust_clip"])
    assert (args.num_images, args.num_steps, args.target_images, args.target_steps) == (500, 100, 25, 10_000)
    assert args.seed == 42 and args.caption_score == "cider" and args.cider_threshold == 10 and args.changed == []
    assert attack_vlm.parse(["--protocol", "robust_clip", "--eps", "2/255", "4/255"]).changed == []
    assert len(TARGETS) == 6


def test_changed_numbers_are_named():
    assert attack_vlm.parse(["--protocol", "robust_clip", "--num_images", "100"]).changed == ["num_images"]


REFUSED = {
    "another radius": (
        "--protocol robust_clip --eps 8/255",
        "--eps with --protocol robust_clip, which has --eps 2/255",
    ),
    "another attack": ("--protocol robust_clip --attack pgd", "which has --attack ensemble"),
    "another score": ("--protocol robust_clip --caption_score chrf", "which has --caption_score cider"),
    "restarts": ("--protocol robust_clip --restarts 2", "--restarts with --attack ensemble"),
    "momentum": ("--attack ensemble --momentum 0.9", "--momentum with --attack ensemble"),
    "steps to a target by PGD": ("--target_steps 5", "--target_steps with --attack pgd"),
    "a threshold of no score": ("--cider_threshold 10", "--cider_threshold without --caption_score cider"),
    "a threshold beyond": ("--caption_score cider --cider_threshold -1", "is from 0 to 1000"),
    "a radius twice": ("--eps 2/255 2/255", "a radius twice"),
    "no images for targets": ("--target_images 0", "target_images=0, which leaves nothing to do"),
    "choices on the emoji": ("--tasks scienceqa", "the task scienceqa without --eval_set"),
    "objects without their task": ("--tasks vqa --object_column a --eval_set set", "without the task pope"),
    "choices without their task": ("--tasks vqa --choice_column a --eval_set set", "without the task scienceqa"),
    "pope without columns": ("--tasks pope --eval_set SET", "without --question_column and --answer_column"),
    "scienceqa without a column": (
        "--tasks scienceqa --eval_set SET --question_column question --answer_column answers",
        "scienceqa without --choice_column",
    ),
    "answers that are not yes or no": (
        "--tasks pope --eval_set SET --question_column question --answer_column name",
        "has the answer 'disc'",
    ),
    "a choice beyond": (
        "--tasks scienceqa --eval_set SET --question_column question --choice_column choices --answer_column number",
        "Row 3 has the answer 5, but it has 2 choices",
    ),
    "no references": ("--tasks caption --caption_column none --eval_set SET --caption_score cider", "has no caption"),
    "questions without answers": (
        "--tasks vqa --eval_set SET --question_column question --answer_column none",
        "has no caption: there is no text in 'none'",
    ),
}


@outcomes(REFUSED)
def test_what_contradicts_or_cannot_work_is_refused_before_any_work(given, outcome, tmp_path, monkeypatch):
    def working(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr(VisionLanguageModel, "write", working)
    monkeypatch.setattr(VisionLanguageModel, "answer_loss", working)
    words = [save_set(tmp_path) if word == "SET" else word for word in given.split()]
    with pytest.raises(SystemExit) as ended:
        attack_vlm.main(words)
    message = str(ended.value)
    assert message.startswith("error: ") and outcome in message


def test_a_column_without_texts_is_named_by_its_flag(tmp_path):
    flags = ["--tasks", "vqa", "--eval_set", save_set(tmp_path), "--question_column", "question"]
    with pytest.raises(SystemExit, match="no text in 'none'.* The column is that of --answer_column"):
        attack_vlm.main([*flags, "--answer_column", "none"])


def save_set(folder) -> str:
    """A set with questions of all kinds about each image."""
    data = Dataset.from_dict(
        {
            "image": list(make_images(4)["image"]),
            "name": ["disc"] * 4,
            "objects": [["disc", "sun"], ["disc"], ["square"], ["square", "sun"]],
            "question": ["is it red?", "is it big?"] * 2,
            "answers": ["yes", "no", "no", "yes"],
            "category": ["random", "popular", "random", "popular"],
            "choices": [["red", "blue"]] * 4,
            "number": [0, 1, 0, 5],
            "right": [0, 1, 0, 1],
            "none": [[]] * 4,
        }
    )
    data.to_parquet(folder / "set.parquet")
    return str(folder / "set.parquet")


COLUMNS = ["--question_column", "question", "--answer_column", "answers", "--category_column", "category"]


def test_pope_has_an_f1_for_each_category_and_their_mean(tmp_path, capsys):
    flags = ["--tasks", "pope", "--eval_set", save_set(tmp_path), *COLUMNS, "--num_images", "4", "--num_steps", "1"]
    report = report_of(tmp_path, *flags, "--eps", "4/255")
    cells = report["towers"]["own tower"]
    assert list(cells) == ["pope random", "pope popular"] and list(cells["pope random"]) == ["clean", "4/255"]
    mean = (cells["pope random"]["clean"]["f1"] + cells["pope popular"]["clean"]["f1"]) / 2
    assert report["means"]["own tower"]["clean"] == mean and "mean of categories" in capsys.readouterr().out
    assert cells["pope random"]["clean"]["f1"] == pytest.approx(2 / 3)  # what does not say no says yes: one of two

    report = report_of(tmp_path, *ROBUST_CLIP, "--tasks", "pope", "--eval_set", flags[3], *COLUMNS)
    assert all(list(result) == ["clean"] for result in report["towers"]["own tower"].values())
    assert "Clean images alone: pope random" in capsys.readouterr().out


def test_popes_questions_are_made_of_what_is_in_the_images(tmp_path):
    flags = ["--tasks", "pope", "--eval_set", save_set(tmp_path), "--object_column", "objects", "--num_images", "4"]
    report = report_of(tmp_path, *ROBUST_CLIP, *flags)
    assert list(report["towers"]["own tower"]) == ["pope random", "pope popular", "pope adversarial"]
    prompts = report["protocol"]["tasks"]["pope random"]["prompts"]
    assert any("Is there a square in the image?" in prompt for prompt in prompts)
    assert report["protocol"]["tasks"]["pope random"]["questions"] == 8  # one or two objects are in each image
    other = report_of(tmp_path, *ROBUST_CLIP, *flags, "--seed", "1")["protocol"]
    assert other["images"]["rows"] == report["protocol"]["images"]["rows"] == [0, 1, 2, 3]
    assert other["tasks"]["pope random"]["asked"] != report["protocol"]["tasks"]["pope random"]["asked"]


def test_what_is_in_an_emoji_are_the_tags_that_others_have_too(tmp_path):
    report = report_of(tmp_path, "--tasks", "pope", "--num_images", "3", "--num_steps", "1", "--eps", "4/255")
    asked = report["protocol"]["tasks"]
    assert list(asked) == ["pope random", "pope popular", "pope adversarial"]

    emoji = [row for row in emoji_questions.load_rows("test") if row[emoji_questions.OBJECTS]]
    rows = [emoji[row] for row in report["protocol"]["images"]["rows"]]
    there = {is_there(name) for row in rows for name in row[emoji_questions.OBJECTS]}
    for task in asked.values():
        assert {prompt.partition("<image>")[2].strip() for prompt in task["prompts"]} <= there
        assert 2 * len(rows) <= task["questions"] <= 6 * len(rows)


def test_scienceqa_is_answered_by_the_likeliest_letter(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_pmgaft.downstream.science_qa.choice_prompt", lambda question, choices: "A or B?")
    flags = ["--tasks", "scienceqa", "--eval_set", save_set(tmp_path), "--question_column", "question"]
    flags += ["--choice_column", "choices", "--answer_column", "right", *SMALL]
    report = report_of(tmp_path, *flags, "--eps", "4/255")
    texts = report["towers"]["own tower"]["scienceqa"]["clean"]["texts"]
    assert set(texts) <= {"A", "B"}
    assert "summed log-probability" in report["protocol"]["tasks"]["scienceqa"]["answered"]
    by_text = report_of(tmp_path, *flags, "--eps", "4/255", "--choice_rule", "text")
    assert "greedy" in by_text["protocol"]["tasks"]["scienceqa"]["answered"]
    assert "A. red" in choice_prompt("is it red?", ["red", "blue"])


def test_the_official_rule_is_that_of_the_score(tmp_path, monkeypatch):
    monkeypatch.setattr(VisionLanguageModel, "write", lambda self, images, *_: ["Yes!"] * len(images))
    flags = ["--tasks", "vqa", "--eval_set", save_set(tmp_path), *COLUMNS[:4], *SMALL, "--eps", "4/255"]
    by_rule = {rule: report_of(tmp_path, *flags, "--vqa_rule", rule) for rule in ("always", "official")}
    for rule, report in by_rule.items():
        assert report["protocol"]["tasks"]["vqa"]["normalised"] == rule
    right = {rule: report["towers"]["own tower"]["vqa"]["clean"]["vqa_accuracy"] for rule, report in by_rule.items()}
    assert right["always"] > 0 and right["official"] == 0  # the one answer is "yes"


def test_the_papers_questions_ask_for_short_answers_and_captions(tmp_path):
    flags = [*ROBUST_CLIP, "--eval_set", save_set(tmp_path), "--tasks", "caption", "vqa", *COLUMNS[:4]]
    tasks = report_of(tmp_path, *flags, "--caption_column", "question")["protocol"]["tasks"]
    assert "Provide a short caption for this image." in tasks["caption"]["prompts"][0]
    assert "Answer the question using a single word or phrase." in tasks["vqa"]["prompts"][0]
    assert "at most 20 tokens" in tasks["caption"]["answered"] and "at most 5 tokens" in tasks["vqa"]["answered"]


def test_a_model_that_answers_nothing_is_flagged(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(VisionLanguageModel, "write", lambda self, images, *_: ["  "] * len(images))
    report_of(tmp_path, *SMALL, "--tasks", "vqa")
    assert "WARNING: own tower answers nothing to what is it called?" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_share_the_images(tmp_path):
    flags = [*ROBUST_CLIP, "--tasks", "caption", "vqa", "--num_images", "6", "--batch_size", "2"]
    alone = report_of(tmp_path, *flags)
    together = tmp_path / "together.json"
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom hf_pmgaft.cli.attack_vlm import main\n\nmain(sys.argv[1:])\n")
    torchrun(2, script, *flags, "--output_file", together, "--verdict_file", tmp_path / "texts.jsonl")
    assert json.loads(together.read_text()) == alone
    assert (tmp_path / "texts.jsonl-1").is_file()
