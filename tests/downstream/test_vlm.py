"""Attacks on what a LLaVA writes, on the tiny one of examples/emoji and on random ones."""

import copy

import pytest
import torch
from PIL import Image
from support.llava import equal_weights, make_llava, pixels_of
from support.paths import EMOJI
from transformers import (
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PixtralVisionConfig,
)

from hf_pmgaft import VisionLanguageModel, attack_answers, vision_tower
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.cli import emoji_questions
from hf_pmgaft.cli.emoji_questions import DESCRIBE, GROUP, NAME, OBJECTS
from hf_pmgaft.data import read_image
from hf_pmgaft.downstream import answer_pgd as module
from hf_pmgaft.downstream.answers import contains
from hf_pmgaft.downstream.pope import SAMPLINGS, is_there, object_questions, read_yes_no

TARGET = "money bag"


@pytest.fixture(scope="module")
def llava() -> VisionLanguageModel:
    model = LlavaForConditionalGeneration.from_pretrained(EMOJI / "llava")
    return VisionLanguageModel(model, LlavaProcessor.from_pretrained(EMOJI / "llava"))


@pytest.fixture(scope="module")
def emoji() -> list[dict]:
    return emoji_questions.load_rows("test")


@pytest.fixture(scope="module")
def rows(emoji) -> list[dict]:
    return emoji[7::300]


@pytest.fixture(scope="module")
def images(llava, rows) -> torch.Tensor:
    return pixels_of(llava, rows)


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


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_tiny_llava_says_what_is_there_far_better_than_without_an_image(llava, emoji, sampling):
    data = [row for row in emoji if row[OBJECTS]][::8]
    made = object_questions([row[OBJECTS] for row in data], sampling, per_image=2)
    images = pixels_of(llava, data)[[one.place for one in made]]
    asked = [is_there(one.object) for one in made]
    right, blind = (
        sum(read_yes_no(text) == one.label for text, one in zip(llava.write(shown, asked), made, strict=True))
        for shown in (images, torch.ones_like(images))
    )
    assert right > 0.65 * len(made) and right > blind + 0.1 * len(made)


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


def test_a_loss_may_be_the_sum_over_tokens_and_count_the_end(llava, images):
    answers, asked = ["cat", "money bag, tagged coin"], [NAME] * 2
    mean = llava.answer_loss(images[:2], asked, answers)
    lengths = torch.tensor([len(llava.answer_ids(answer)) for answer in answers])
    torch.testing.assert_close(llava.answer_loss(images[:2], asked, answers, reduction="sum"), mean * lengths)

    # The end, after the answer, by a pass of its own
    ended = llava.answer_loss(images[:2], asked, answers, reduction="sum", end_token=True)
    ids = torch.cat([llava.prompt_ids(NAME), llava.answer_ids("cat")])[None]
    pixels = (images[:1] - llava.pixels.mean) / llava.pixels.std
    logits = llava.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits[0, -1]
    end = -logits.log_softmax(-1)[llava.tokenizer.eos_token_id]
    torch.testing.assert_close(ended[0] - mean[0] * lengths[0], end, rtol=1e-4, atol=1e-4)

    with refused("There is no reduction 'max'"):
        llava.answer_loss(images[:2], asked, answers, reduction="max")


def test_several_answers_of_an_image_share_its_loss(llava, images, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "pgd", lambda model, x, labels, loss_fn, **options: seen.update(loss=loss_fn(x)) or x)
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
    monkeypatch.setattr(module, "pgd", lambda model, x, labels, **options: (x + 0.3 / 255).clamp(0, 1))
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


def test_models_without_a_tower_of_one_size_are_refused(llava):
    with refused("CLIPModel, but the attack goes through the language model", TypeError):
        VisionLanguageModel(CLIPModel.from_pretrained(EMOJI / "model"), llava.processor)
    text = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    vision = PixtralVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    other = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=39))
    with refused("vision tower is a pixtral", TypeError):
        VisionLanguageModel(other, llava.processor)
    with refused("dtype=torch.float32"):
        VisionLanguageModel(make_llava(torch.bfloat16), llava.processor)


def test_images_and_answers_that_do_not_fit_are_refused(llava, images):
    with refused("no images"):
        attack_answers(llava, images[:0], [], [], eps="4/255")
    with refused(r"takes \[B,3,40,40\] in \[0,1\]"):
        attack_answers(llava, images[:1, :, :20], [NAME], [["cat"]], eps="4/255")
    with refused("from 0 to 255.*Divide them by 255"):
        attack_answers(llava, 255 * images[:1], [NAME], [["cat"]], eps="4/255")
    with refused(r"images of 2 sizes, \[\(20, 40\), \(40, 40\)\]; a batch has images of one"):
        attack_answers(llava, [images[0], images[1, :, :20]], [NAME] * 2, [["cat"]] * 2, eps="4/255")
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
