"""Attacks on what a LLaVA writes, on the tiny one of examples/emoji and on random ones."""

import copy
import functools
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from support.llava import equal_weights, make_llava, pixels_of
from support.paths import EMOJI, EXAMPLES
from support.tiny import make_images
from transformers import (
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipVisionConfig,
)

from hf_pmgaft import AttackSpec, VisionLanguageModel, attack_answers, vision_tower
from hf_pmgaft.data import read_image
from hf_pmgaft.downstream import llava as vlm
from hf_pmgaft.downstream.llava import caption_score, contains, normalise_answer, vqa_accuracy

DESCRIBE, NAME, GROUP = "describe it", "what is it called?", "which group is it?"
TARGET = "money bag"


@pytest.fixture(scope="module")
def llava() -> VisionLanguageModel:
    model = LlavaForConditionalGeneration.from_pretrained(EMOJI / "llava")
    return VisionLanguageModel(model, LlavaProcessor.from_pretrained(EMOJI / "llava"))


@pytest.fixture(scope="module")
def script():
    import attack_llava
    import questions

    load = questions.load_rows
    questions.load_rows = functools.cache(load)  # which takes most of the time of a small run
    yield attack_llava
    questions.load_rows = load


@pytest.fixture(scope="module")
def emoji(script) -> list[dict]:
    return sys.modules["questions"].load_rows("test")


@pytest.fixture(scope="module")
def rows(emoji) -> list[dict]:
    return emoji[7::300]


@pytest.fixture(scope="module")
def images(llava, rows) -> torch.Tensor:
    return pixels_of(llava, rows)


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


def losses(llava, images, question, answer):
    with torch.no_grad():
        return llava.answer_loss(images, [question] * len(images), [answer] * len(images))


# --- the tiny LLaVA


def test_the_tower_of_the_tiny_llava_is_that_of_the_embedded_clip(llava):
    assert equal_weights(CLIPModel.from_pretrained(EMOJI / "model").vision_model, vision_tower(llava.model))
    assert llava.model.dtype == torch.float32


def test_the_tiny_llava_describes_emoji_far_better_than_without_an_image(llava, emoji):
    data = emoji[::16]
    images = pixels_of(llava, data)
    for question, enough in ((DESCRIBE, 0.3), (NAME, 0.3), (GROUP, 0.6)):
        right = [
            sum(
                text == row[question]
                for text, row in zip(llava.write(shown, [question] * len(data)), data, strict=True)
            )
            for shown in (images, torch.ones_like(images))
        ]
        assert right[0] / len(data) > enough and right[1] < right[0] / 2


def test_it_is_served_by_the_ordinary_pipeline(llava, rows, images):
    from transformers import pipeline

    ask = pipeline("image-text-to-text", model=str(EMOJI / "llava"), dtype=torch.float32)
    content = [{"type": "image", "image": read_image(rows[0]["image"])}, {"type": "text", "text": NAME}]
    found = ask(text=[{"role": "user", "content": content}], return_full_text=False, max_new_tokens=30)
    assert found[0]["generated_text"].strip() == llava.write(images[:1], [NAME])[0]


@pytest.mark.parametrize("text", ["flag: côte d’ivoire", "BUY  now,\nplease!", "japanese “bargain” button", "🙂"])
def test_its_tokenizer_gives_back_every_text_as_it_was(llava, text):
    assert llava.tokenizer.decode(llava.answer_ids(text)) == text


# --- losses and texts


def test_the_loss_of_an_answer_is_the_models_own(llava, images):
    questions, answers = [NAME, DESCRIBE, NAME], ["cat", "money bag, tagged coin, dollar", "flag: france"]
    found = llava.answer_loss(images[:3], questions, answers)
    for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        text = llava.prompt(question) + answer
        image = Image.fromarray((255 * images[place]).round().byte().permute(1, 2, 0).numpy())
        inputs = llava.processor(images=image, text=text, return_tensors="pt")
        labels = inputs["input_ids"].clone()
        labels[:, : len(llava.prompt_ids(question))] = -100
        expected = llava.model(**inputs, labels=labels).loss
        torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-5)


def test_several_answers_of_an_image_share_its_loss(llava, images, monkeypatch):
    seen = {}
    monkeypatch.setattr(vlm, "pgd", lambda model, x, labels, loss_fn, **options: seen.update(loss=loss_fn(x)) or x)
    answers = [["cat"], ["dog", "money bag", "face"]]
    attack_answers(llava, images[:2], [NAME] * 2, answers, eps="4/255")
    each = [[losses(llava, images[i : i + 1], NAME, answer) for answer in answers[i]] for i in range(2)]
    torch.testing.assert_close(seen["loss"], torch.stack([torch.stack(own).mean() for own in each]))
    attack_answers(llava, images[:2], [NAME] * 2, answers, eps="4/255", targeted=True)
    torch.testing.assert_close(seen["loss"], -torch.stack([torch.stack(own).mean() for own in each]))


def test_texts_do_not_depend_on_the_batch(llava, images):
    asked = [DESCRIBE, NAME, GROUP] * 2
    together = llava.write(images, asked)
    assert together == [llava.write(image[None], [q])[0] for image, q in zip(images, asked, strict=True)]
    assert len(set(together)) > 2


# --- the attack


def test_a_radius_of_zero_leaves_every_text_as_it_is(llava, images):
    for question in (DESCRIBE, NAME, GROUP):
        asked = [question] * len(images)
        same = attack_answers(llava, images, asked, [[TARGET]] * len(images), eps=0, targeted=True, num_steps=3)
        torch.testing.assert_close(same, images, rtol=0, atol=1e-6)
        assert llava.write(same, asked) == llava.write(images, asked)


def test_the_targeted_attack_reaches_its_target_and_brings_every_loss_down(llava, images):
    asked, target = [DESCRIBE] * len(images), [[TARGET]] * len(images)
    assert not any(contains(text, TARGET) for text in llava.write(images, asked))
    options = {"targeted": True, "num_steps": 40, "seeds": torch.arange(len(images))}

    found = attack_answers(llava, images, asked, target, eps="8/255", **options)

    before, after = (losses(llava, shown, DESCRIBE, TARGET) for shown in (images, found))
    assert (after < before - 1).all()
    assert any(contains(text, TARGET) for text in llava.write(found, asked))
    assert torch.equal(found, attack_answers(llava, images, asked, target, eps="8/255", **options))


def test_the_untargeted_attack_makes_the_right_answer_unlikely(llava, rows, images):
    answers = [[row[NAME]] for row in rows]
    found = attack_answers(llava, images, [NAME] * len(rows), answers, eps="4/255", num_steps=20)
    before, after = (
        torch.cat([losses(llava, shown[i : i + 1], NAME, *answer) for i, answer in enumerate(answers)])
        for shown in (images, found)
    )
    assert (after > before + 0.1).all() and (after - before).max() > 3


@pytest.mark.parametrize("eps", ["2/255", "4/255", 5.4 / 255])
def test_adversarial_images_have_8_bits_and_lie_inside_the_ball(llava, images, eps):
    found = attack_answers(llava, images, [NAME] * len(images), [["cat"]] * len(images), eps=eps, num_steps=3)
    levels = found * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    distance = (levels - images * 255).abs().amax().item()
    assert 1 < distance <= (5 if isinstance(eps, float) else int(eps[0])) + 1e-3  # the grey levels below 5.4
    assert found.amin() >= 0 and found.amax() <= 1 and not found.requires_grad


def test_what_8_bits_cannot_hold_is_not_seen(llava, images, monkeypatch):
    monkeypatch.setattr(vlm, "pgd", lambda model, x, labels, **options: (x + 0.3 / 255).clamp(0, 1))
    found = attack_answers(llava, images, [NAME] * len(images), [["cat"]] * len(images), eps="4/255")
    torch.testing.assert_close(found, images, rtol=0, atol=1e-6)


def test_an_image_outside_its_ball_is_an_error(llava, images, monkeypatch):
    monkeypatch.setattr(AttackSpec, "round_to_8_bits", lambda spec, x, found: (x + 9 / 255).clamp(0, 1))
    with pytest.raises(RuntimeError, match="left its ball"):
        attack_answers(llava, images, [NAME] * len(images), [["cat"]] * len(images), eps="4/255", num_steps=1)


def test_noise_follows_the_seed_of_an_image_and_not_its_batch(llava, images, rows):
    asked, answers, seeds = [NAME] * 3, [["cat"]] * 3, torch.tensor([5, 9, 5])
    start = {"eps": "8/255", "num_steps": 1, "step_size": 0.0}  # what comes back is the random start
    together = attack_answers(llava, images[[0, 1, 0]], asked, answers, seeds=seeds, **start)
    alone = attack_answers(llava, images[1:2], asked[:1], answers[:1], seeds=seeds[1:2], **start)
    assert torch.equal(together[1:2], alone) and torch.equal(together[0], together[2])
    other = attack_answers(llava, images[:1], asked[:1], answers[:1], seeds=seeds[1:2], **start)
    assert not torch.equal(together[:1], other)


def test_the_model_is_left_as_it_was(llava, images):
    model = copy.deepcopy(llava.model).train()
    before = copy.deepcopy(model.state_dict())
    ours, state = VisionLanguageModel(model, llava.processor), torch.get_rng_state()
    attack_answers(ours, images[:1], [NAME], [["cat"]], eps="4/255", num_steps=2)
    ours.write(images[:1], [NAME])
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


# --- scores


def test_vqa_accuracy_is_the_mean_over_the_other_answers():
    answers = ["2 cats", "two cats", *["dog"] * 8]
    assert vqa_accuracy("Two cats.", answers) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("a dog", answers) == 1
    assert vqa_accuracy("bird", answers) == 0
    assert (vqa_accuracy("cat", ["cat"]), vqa_accuracy("cat", ["dog"])) == (1, 0)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The Cat", "cat"),
        ("a dog, an owl!", "dog owl"),
        ("ten", "10"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("dont", "dont"),
        ("don't", "dont"),
        ("well-known/read", "well known read"),
        ("flag: france\n", "flag: france"),
    ],
)
def test_answers_are_compared_as_the_official_evaluation_does(text, expected):
    assert normalise_answer(text) == expected


def test_captions_are_scored_against_the_best_reference():
    assert caption_score("a red cat", ["a dog", "a red cat"]) == 1
    assert caption_score("zzz", ["a red cat"]) < 0.05
    assert 0.3 < caption_score("a red cap", ["a red cat"]) < 1


def test_a_target_counts_wherever_it_stands():
    assert contains("so, money  bag\n", "money bag") and not contains("money", "money bag")


# --- what cannot work


def refused(match, error=ValueError):
    return pytest.raises(error, match=match)


def test_targets_that_cannot_be_written_are_refused(llava):
    llava.check_target(TARGET, NAME, 30)
    with refused("empty target"):
        llava.check_target("  ", NAME, 30)
    with refused("is to write at most 3"):
        llava.check_target("flag: united kingdom, tagged gb", NAME, 3)
    with refused("longer than the model's context of 96"):
        llava.check_target("cat " * 80, NAME, 500)
    with refused("max_new_tokens=90.*context of 96"):
        llava.check_room(NAME, 90)


def test_models_without_a_clip_tower_are_refused(llava):
    with refused("CLIPModel, but the attack goes through the language model", TypeError):
        VisionLanguageModel(CLIPModel.from_pretrained(EMOJI / "model"), llava.processor)
    text = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    vision = SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    other = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=39))
    with refused("vision tower is a siglip_vision_model", TypeError):
        VisionLanguageModel(other, llava.processor)
    with refused("dtype=torch.float32"):
        VisionLanguageModel(make_llava(torch.bfloat16), llava.processor)


def test_images_and_answers_that_do_not_fit_are_refused(llava, images):
    with refused("no images"):
        attack_answers(llava, images[:0], [], [], eps="4/255")
    with refused(r"takes \[B,3,40,40\] in \[0,1\]"):
        attack_answers(llava, images[:1, :, :20], [NAME], [["cat"]], eps="4/255")
    with refused(r"takes \[B,3,40,40\] in \[0,1\]"):
        attack_answers(llava, 255 * images[:1], [NAME], [["cat"]], eps="4/255")
    with refused("at least one answer"):
        attack_answers(llava, images[:2], [NAME] * 2, [["cat"], []], eps="4/255")
    with refused("write 4/255"):
        attack_answers(llava, images[:1], [NAME], [["cat"]], eps=4)


def test_a_question_without_a_chat_template_needs_the_images_place(llava):
    bare = copy.copy(llava.processor)
    bare.chat_template = None
    model = VisionLanguageModel(llava.model, bare)
    with refused("no chat template"):
        model.prompt(NAME)
    assert torch.equal(model.prompt_ids(f"<image>{NAME}\n"), llava.prompt_ids(NAME))


# --- the example


SMALL = ["--num_images", "3", "--num_steps", "4", "--eps", "4/255", "2/255", "--tasks", "targeted", "vqa"]


def report_of(script, folder, *flags) -> dict:
    file = folder / "report.json"
    script.main([*SMALL, *flags, "--output_file", str(file)])
    return json.loads(file.read_text())


def test_the_example_reports_every_tower_and_leaves_the_rest_of_the_model_alone(script, robust, tmp_path, capsys):
    kept = []
    load = script.load_llava
    script.load_llava = lambda name: kept.append(load(name)) or kept[0]
    try:
        report = report_of(script, tmp_path, "--towers", robust, "--gallery", str(tmp_path / "seen.png"))
    finally:
        script.load_llava = load

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


def test_texts_are_those_about_the_rounded_image(script, tmp_path, llava):
    report = report_of(script, tmp_path, "--tasks", "vqa")
    args = script.parse([*SMALL, "--tasks", "vqa"])
    rows, images, tasks = script.load_tasks(args, llava)
    seeds = script.sample_seeds(0, 0, torch.tensor(rows))
    for task in tasks:
        cells = report["towers"]["own tower"][task.name]
        assert cells["clean"]["texts"] == llava.write(images, task.questions)
        found = attack_answers(llava, images, task.questions, task.answers, eps="2/255", num_steps=4, seeds=seeds)
        for text, now in zip(cells["2/255"]["texts"], llava.write(found, task.questions), strict=True):
            assert text in (None, now)  # an image that was wrong before is not attacked


def test_figures_do_not_depend_on_the_batch_nor_on_a_kill(script, robust, tmp_path, monkeypatch):
    flags = ["--tasks", "vqa", "--eps", "4/255"]
    whole = report_of(script, tmp_path, *flags, "--towers", robust)
    assert report_of(script, tmp_path, *flags, "--towers", robust, "--batch_size", "1") == whole
    texts = tmp_path / "texts.jsonl"
    flags += ["--verdict_file", str(texts)]
    assert report_of(script, tmp_path, *flags) != whole  # one tower, another is added
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join(lines[:-2]) + lines[-2][:20])
    attacked = []
    attack = script.Bench.attack
    monkeypatch.setattr(script.Bench, "attack", lambda *a: attacked.append(a[0].name) or attack(*a))
    assert report_of(script, tmp_path, *flags, "--towers", robust) == whole
    assert 0 < sum(name.startswith("own") for name in attacked) <= 2
    with refused("differs in protocol.attack"):
        report_of(script, tmp_path, *flags, "--momentum", "0.9")


def test_a_set_of_ones_own_brings_captions_questions_and_answers(script, tmp_path):
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
    report = report_of(script, tmp_path, *flags, "--tasks", "targeted", "caption", "vqa")
    cells = report["towers"]["own tower"]
    assert list(cells) == ["target 'cat'", "caption", "vqa"]
    assert 0 <= cells["caption"]["4/255"]["chrf"] <= cells["caption"]["clean"]["chrf"] < 0.9
    with refused("no answer|no caption"):
        broken = data.remove_columns("captions").add_column("captions", [["a"], [], ["b"], ["c"]])
        broken.to_parquet(tmp_path / "set.parquet")
        report_of(script, tmp_path, *flags, "--tasks", "caption")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--num_images", "0"], "num_images=0, which leaves nothing to do"),
        (["--eps", "4"], "write 4/255"),
        (["--targets", ""], "empty target"),
        (["--targets", "cat " * 40], "is to write at most 30"),
        (["--targets", "cat " * 80, "--max_new_tokens", "90"], "longer than the model's context"),
        (["--model", str(EMOJI / "model")], "is a clip and no llava"),
        (["--model", "nowhere"], "error: "),
        (["--towers", str(EMOJI / "llava"), str(EMOJI / "llava")], "a tower twice"),
        (["--targets", str(EMOJI / "comparison.json")], "holds no list of targets"),
        (["--towers", "SMALLER"], "does not fit"),
        (["--eval_set", "nowhere.parquet"], "error: "),
    ],
)
def test_what_cannot_work_ends_with_one_line_before_any_work(argv, message, monkeypatch, model, tmp_path):
    def working(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr(VisionLanguageModel, "write", working)
    monkeypatch.setattr(vlm, "pgd", working)
    if "SMALLER" in argv:
        model.save_pretrained(tmp_path)
        argv = ["--towers", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["attack_llava.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / "attack_llava.py"), run_name="__main__")
    assert str(stopped.value.code).startswith("error: ") and message in str(stopped.value.code)


def test_help_teaches(script, capsys):
    with pytest.raises(SystemExit):
        script.parse(["--help"])
    printed = capsys.readouterr().out
    assert "python examples/attack_llava.py --towers" in printed and "--targets" in printed
