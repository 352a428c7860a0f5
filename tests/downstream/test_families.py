"""Every family of vision-language models: its pixels are its processor's, gradients reach them, and attacks work."""

import copy
import functools
import importlib.util
import json

import pytest
import torch
import transformers
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from support.family_table import resumes
from support.llava import equal_weights
from support.paths import EMOJI
from support.vlm_families import (
    MAKERS,
    QUESTIONS,
    as_file,
    family_or_skip,
    make_clip,
    make_pictures,
    make_siglip,
    make_vlm,
)
from transformers import BlipConfig

from hf_pmgaft import VisionLanguageModel, attack_answers, swap_vision_tower, vision_tower
from hf_pmgaft.cli import attack_vlm
from hf_pmgaft.downstream.answer_attacks import AskedImages
from hf_pmgaft.downstream.families import FAMILIES, family_named
from hf_pmgaft.downstream.scores import ChoiceScore
from hf_pmgaft.downstream.tasks import AnswerTask
from hf_pmgaft.downstream.vlm import load_vlm

ANSWERS = ["cat", "money bag, tagged coin"]
# A resize of 8 bits rounds by half a level, and there are three at most, which pass it on; 1.45 levels were seen.
ROUNDING = 2 / 255


@pytest.fixture(params=MAKERS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def vlm(kind) -> VisionLanguageModel:
    return opened(kind)


@functools.cache
def opened(kind: str) -> VisionLanguageModel:
    return VisionLanguageModel(*family_or_skip(kind))


@pytest.fixture
def qwen() -> VisionLanguageModel:
    return opened("qwen2_5_vl")


def images_for(vlm: VisionLanguageModel) -> torch.Tensor:
    return make_pictures(vlm.image_size)


def loss_of(vlm, images, **options):
    with torch.no_grad():
        return vlm.answer_loss(images, QUESTIONS, ANSWERS, **options)


def test_every_family_is_tested():
    assert {kind.split()[0] for kind in MAKERS} == set(FAMILIES)


def test_the_pixels_are_those_that_the_processor_makes_of_the_file(vlm):
    images = images_for(vlm)
    made = [vlm.processor(images=as_file(image), text=vlm.prompt("?"), return_tensors="pt") for image in images]
    attacked, judged = vlm.pixels.inputs(images), vlm.pixels.inputs(vlm.pixels.as_judged(images))

    for name in ("pixel_values", *vlm.family.by_size):
        expected = torch.cat([of_image[name] for of_image in made])
        torch.testing.assert_close(judged[name], expected, rtol=0, atol=1e-6)
        rounding = ROUNDING / min(vlm.processor.image_processor.image_std) if vlm.image_size is None else 1e-6
        torch.testing.assert_close(attacked[name], expected, rtol=0, atol=rounding if name == "pixel_values" else 0)


def test_where_nothing_rounds_the_pixels_are_equal(vlm):
    flat = torch.full_like(images_for(vlm)[:1], 200 / 255)
    attacked, judged = vlm.pixels.inputs(flat), vlm.pixels.inputs(vlm.pixels.as_judged(flat))
    torch.testing.assert_close(attacked["pixel_values"], judged["pixel_values"], rtol=0, atol=1e-5)


def test_prompts_are_those_of_the_chat_template(vlm):
    image = images_for(vlm)[0]
    size = tuple(image.shape[-2:])
    if vlm.processor.chat_template:
        content = [{"type": "image", "image": as_file(image)}, {"type": "text", "text": QUESTIONS[0]}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        made = vlm.processor.apply_chat_template([{"role": "user", "content": content}], **options)
    else:
        made = vlm.processor(images=as_file(image), text=f"<image>{QUESTIONS[0]}", return_tensors="pt")
    assert torch.equal(vlm.prompt_ids(QUESTIONS[0], size), made["input_ids"][0])


def test_the_gradient_reaches_every_pixel(vlm):
    images = images_for(vlm).requires_grad_()
    (gradient,) = torch.autograd.grad(vlm.answer_loss(images, QUESTIONS, ANSWERS).sum(), images)
    assert (gradient != 0).float().mean() > 0.99


def test_the_loss_is_what_decoding_says_of_the_answer(vlm):
    images = images_for(vlm)
    judged = vlm.pixels.as_judged(images)
    losses = loss_of(vlm, judged, reduction="sum")
    for place, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        assert losses[place].item() == pytest.approx(decoded_loss(vlm, images[place], question, answer), abs=2e-3)


def decoded_loss(vlm, image, question, answer) -> float:
    """Minus the log-likelihood of an answer that decoding is made to write, token by token."""
    inputs = vlm.processor(
        images=as_file(image), text=vlm.prompt(question), return_tensors="pt", add_special_tokens=False
    )
    told = {name: value for name, value in inputs.items() if name not in ("labels", "num_crops")}
    start, ids = inputs["input_ids"].shape[1], vlm.answer_ids(answer).tolist()
    written = vlm.model.generate(
        **told,
        max_new_tokens=len(ids),
        do_sample=False,
        prefix_allowed_tokens_fn=lambda row, so_far: [ids[len(so_far) - start]],
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert written.sequences[0, start:].tolist() == ids
    return -sum(logits[0].log_softmax(-1)[token].item() for logits, token in zip(written.logits, ids, strict=True))


def test_texts_do_not_depend_on_the_batch_nor_on_a_radius_of_zero(vlm):
    images = images_for(vlm)
    texts = vlm.write(images, QUESTIONS, 6)
    assert texts == [vlm.write(image[None], [q], 6)[0] for image, q in zip(images, QUESTIONS, strict=True)]

    same = attack_answers(vlm, images, QUESTIONS, [[answer] for answer in ANSWERS], eps=0, num_steps=2)
    assert vlm.write(same, QUESTIONS, 6) == texts


def test_attacks_move_the_loss_of_the_rounded_image(vlm):
    images, answers = images_for(vlm), [[answer] for answer in ANSWERS]
    clean = loss_of(vlm, vlm.pixels.as_judged(images))
    for targeted, sign in ((False, 1), (True, -1)):
        options = {"eps": "4/255", "num_steps": 6, "random_start": False, "targeted": targeted}
        attacked = attack_answers(vlm, images, QUESTIONS, answers, **options)
        levels = attacked * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
        assert ((attacked - images).abs() <= 4.001 / 255).all()
        assert (sign * (loss_of(vlm, vlm.pixels.as_judged(attacked)) - clean) > 0).all()


def test_a_saved_model_is_opened_by_its_folder(vlm, tmp_path):
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    again, images = load_vlm(str(tmp_path)), images_for(vlm)
    torch.testing.assert_close(loss_of(again, images), loss_of(vlm, images))
    assert again.model.dtype == torch.float32 and not again.model.training


@pytest.mark.parametrize(
    "kind, options, size, tiles",
    [
        ("internvl", {"crop_to_patches": False}, (20, 28), 1),
        ("gemma3", {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 8}, (16, 40), 4),
        ("idefics3", {"do_image_splitting": False}, (20, 28), 1),
    ],
)
def test_options_of_the_image_processor_are_its_own(kind, options, size, tiles):
    vlm = VisionLanguageModel(*family_or_skip(kind), options)
    images = make_pictures(40)[:, :, : size[0], : size[1]]
    made = vlm.processor(images=as_file(images[0]), text=vlm.prompt("?"), return_tensors="pt", **options)

    judged = vlm.pixels.inputs(vlm.pixels.as_judged(images[:1]))["pixel_values"]
    assert judged.flatten(0, -4).shape[0] == tiles
    torch.testing.assert_close(judged, made["pixel_values"], rtol=0, atol=1e-6)
    assert torch.isfinite(loss_of(vlm, images)).all()
    assert vlm.pixels.described()["options"].items() >= options.items()


def test_options_that_have_no_effect_are_refused(qwen):
    with pytest.raises(ValueError, match=r"\['crop_to_patches'\], but a Qwen2VLImageProcessor has none of these"):
        VisionLanguageModel(qwen.model, qwen.processor, {"crop_to_patches": False})
    with pytest.raises(ValueError, match="do_rescale"):
        VisionLanguageModel(qwen.model, qwen.processor, {"do_rescale": False})
    llava = opened("llava")
    with pytest.raises(ValueError, match="images come at the tower's size"):
        VisionLanguageModel(llava.model, llava.processor, {"do_resize": False})


# ---- Evaluation ----


def test_a_stopped_evaluation_goes_on_where_it_was(vlm, tmp_path):
    assert resumes(vlm, tmp_path / "texts.jsonl")


def test_texts_are_about_the_image_of_8_bits(qwen, monkeypatch):
    make, seen = qwen.pixels.inputs, []
    monkeypatch.setattr(qwen.pixels, "inputs", lambda images: seen.append(images.clone()) or make(images))
    images = (make_pictures() + 0.3 / 255).clamp(0, 1)
    qwen.write(images, QUESTIONS, 2)
    assert torch.equal(seen[0], (make_pictures() * 255).round().to(torch.uint8))


def test_a_choice_is_made_by_the_image_of_8_bits(qwen, monkeypatch):
    images, loss, seen = make_pictures(), qwen.answer_loss, []
    choices = [["cat", "dog"]] * 2
    task = AnswerTask("asked", "choice", QUESTIONS, [["cat"]] * 2, ChoiceScore([0, 0], [2, 2]), options=choices)
    monkeypatch.setattr(qwen, "answer_loss", lambda shown, *rest, **options: seen.append(shown) or loss(shown, *rest))
    asked = AskedImages(qwen, task, images, [0, 1], 2)
    assert set(asked.write(images, [0, 1])) <= {"cat", "dog"}
    assert [shown.dtype for shown in seen] == [torch.uint8] * 2


def test_the_command_attacks_files_of_several_sizes(qwen, tmp_path, capsys):
    qwen.model.save_pretrained(tmp_path / "model")
    qwen.processor.save_pretrained(tmp_path / "model")
    pictures = [as_file(make_pictures()[0]), as_file(make_pictures(24)[1])]
    columns = {"image": pictures, "question": ["what?", "which?"], "answers": [["cat"], ["dog"]]}
    features = Features({"image": ImageFeature(), "question": Value("string"), "answers": [Value("string")]})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "set.parquet")

    flags = ["--model", str(tmp_path / "model"), "--eval_set", str(tmp_path / "set.parquet"), "--tasks", "vqa"]
    flags += ["--question_column", "question", "--answer_column", "answers", "--num_steps", "2", "--eps", "4/255"]
    flags += ["--image_options", '{"do_normalize": false}']
    attack_vlm.main([*flags, "--max_new_tokens", "3", "--output_file", str(tmp_path / "report.json")])

    protocol = json.loads((tmp_path / "report.json").read_text())["protocol"]
    assert protocol["images"]["sizes"] == ["20x28", "24x24"]
    assert protocol["images"]["attacked_at"] == "the file's size"
    assert protocol["images"]["image_processor"] == "Qwen2VLImageProcessor"
    assert protocol["images"]["options"] == {"do_normalize": False}
    with pytest.raises(SystemExit, match="whose vision tower is a Qwen2_5_Vision"):
        attack_vlm.main([*flags, "--towers", str(EMOJI / "model")])


# ---- Towers ----

KINDS_OF_TOWERS = {"clip_vision_model": make_clip, "siglip_vision_model": make_siglip}


def test_a_robust_tower_takes_the_place_of_a_clips_or_siglips_alone(kind):
    model, _ = family_or_skip(kind)
    before = copy.deepcopy(model)
    tower = vision_tower(model)
    make_donor = KINDS_OF_TOWERS.get(tower.config.model_type)
    if make_donor is None:
        with pytest.raises(
            TypeError, match=f"ForConditionalGeneration, whose vision tower is a {type(tower).__name__}"
        ):
            swap_vision_tower(model, make_clip())
        assert equal_weights(model, before)
        return

    donor = make_donor()
    swap_vision_tower(model, donor)

    ids = {id(value) for value in tower.state_dict(keep_vars=True).values()}
    weights = donor.vision_model.state_dict()
    for name, value in tower.state_dict().items():
        assert torch.equal(value, weights[name])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert changed and all(id(model.state_dict(keep_vars=True)[name]) in ids for name in changed)


def test_a_tower_of_another_family_is_refused_and_nothing_changes():
    model, _ = make_vlm("llava on siglip")
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="it is a CLIPVisionModel, not a SiglipVisionModel"):
        swap_vision_tower(model, make_clip())
    assert equal_weights(model, before)


# ---- What cannot work ----


def test_an_unknown_family_is_refused_before_its_weights_are_read(tmp_path):
    BlipConfig().save_pretrained(tmp_path)  # no weights beside it
    with pytest.raises(TypeError, match="is a blip, .* Pass one of: gemma3, idefics3"):
        load_vlm(str(tmp_path))


def test_a_family_says_which_library_it_needs(monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "5.24.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="is a qwen3_vl, which needs torchvision.*pip install torchvision"):
        family_named("qwen3_vl")
    assert family_named("llava").own_size

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(transformers, "__version__", "5.22.2")
    with pytest.raises(ImportError, match=r"is a gemma3, which needs transformers 5\.23 or newer, but 5\.22\.2"):
        family_named("gemma3")
    assert family_named("qwen3_vl").by_size == ("image_grid_thw",)


def test_a_processor_that_works_in_numpy_is_refused(qwen):
    processor = copy.copy(qwen.processor)
    processor.image_processor = transformers.Qwen2VLImageProcessorPil()
    with pytest.raises(TypeError, match="Qwen2VLImageProcessorPil, which works in NumPy"):
        VisionLanguageModel(qwen.model, processor)


@pytest.mark.parametrize(
    "breaks, message",
    [
        (lambda image: image.detach(), "its pixel values have none"),
        (lambda image: 2 * image - image.detach(), "where the loss changes by"),
        (lambda image: image.round(), "sum of its absolute values is 0"),
        (lambda image: torch.as_tensor(image.numpy()), "requires grad"),
    ],
    ids=["detached", "doubled", "rounded", "in numpy"],
)
def test_a_processor_that_breaks_the_gradient_is_refused(qwen, monkeypatch, breaks, message):
    own = type(qwen.processor.image_processor)
    normalise = own.rescale_and_normalize
    monkeypatch.setattr(own, "rescale_and_normalize", lambda self, image, *rest: normalise(self, breaks(image), *rest))
    with pytest.raises(TypeError, match=f"Qwen2VLImageProcessor, through which no right gradient.*{message}"):
        VisionLanguageModel(qwen.model, qwen.processor)


def test_an_image_that_is_cut_up_by_its_content_is_refused(qwen, monkeypatch):
    own = type(qwen.processor.image_processor)
    make = own.preprocess

    def by_content(self, images, **options):
        return make(self, [image if image.amax() == 0 else image[:, :8] for image in images], **options)

    monkeypatch.setattr(own, "preprocess", by_content)
    with pytest.raises(RuntimeError, match=r"cuts up images of \(24, 20\) pixels by their content"):
        qwen.pixels.inputs(torch.full((1, 3, 24, 20), 0.5))


def test_prompts_and_targets_that_do_not_fit_the_context_are_refused(qwen, monkeypatch):
    monkeypatch.setattr(qwen.model.config.text_config, "max_position_embeddings", 20)
    qwen.check_target("cat", "what?", 5, size=(16, 16))
    with pytest.raises(ValueError, match="longer than the model's context of 20"):
        qwen.check_target("cat " * 20, "what?", 500, size=(16, 16))
    with pytest.raises(ValueError, match="max_new_tokens=15.*context of 20"):
        qwen.check_room("what?", 15, size=(16, 16))
    with pytest.raises(ValueError, match="about an image of 32 x 32 pixels, which are .* tokens"):
        qwen.answer_loss(torch.rand(1, 3, 32, 32), ["what?"], ["cat"])


def test_what_is_no_batch_of_images_is_refused(qwen):
    with pytest.raises(ValueError, match=r"takes \[B,3,H,W\] in \[0,1\], all of one size"):
        attack_answers(qwen, torch.rand(1, 1, 20, 28), ["what?"], [["cat"]], eps="4/255")
    with pytest.raises(ValueError, match="images of 2 sizes"):
        attack_answers(qwen, [torch.rand(3, 20, 28), torch.rand(3, 28, 20)], ["what?"] * 2, [["cat"]] * 2, eps="4/255")
