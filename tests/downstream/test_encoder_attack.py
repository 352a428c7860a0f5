"""The attack on a tower alone: tokens that the language model reads are pushed away, and it is never run."""

import functools

import pytest
import torch
from support.llava import pixels_of
from support.paths import EMOJI
from support.vlm_families import MAKERS, family_or_skip, make_pictures

from hf_pmgaft import VisionLanguageModel
from hf_pmgaft.cli import emoji_questions
from hf_pmgaft.cli.emoji_questions import NAME
from hf_pmgaft.downstream import encoder_attack as module
from hf_pmgaft.downstream.encoder_attack import attack_encoder
from hf_pmgaft.downstream.vlm import load_vlm


@functools.cache
def opened(kind: str) -> VisionLanguageModel:
    return VisionLanguageModel(*family_or_skip(kind))


@pytest.fixture(params=MAKERS)
def vlm(request) -> VisionLanguageModel:
    return opened(request.param)


@pytest.fixture
def llava() -> VisionLanguageModel:
    return opened("llava")


def distance(vlm, one, two) -> torch.Tensor:
    with torch.no_grad():
        return (vlm.features(one) - vlm.features(two)).square().sum(-1).mean(1)


def test_features_are_the_patches_of_the_layer_that_llava_reads(llava):
    images = make_pictures(16)
    tower = llava.model.model.vision_tower
    states = tower(**llava.pixels.inputs(images), output_hidden_states=True).hidden_states
    torch.testing.assert_close(llava.features(images), states[-2][:, 1:], rtol=0, atol=1e-6)


def test_features_of_an_image_do_not_depend_on_its_batch(vlm):
    images = make_pictures(vlm.image_size)
    with torch.no_grad():
        together, alone = vlm.features(images), [vlm.features(image[None]) for image in images]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert together.shape[0] == 2 and not torch.allclose(together[0], together[1], atol=0.1)


def test_tokens_are_pushed_away_without_the_language_model(vlm, monkeypatch):
    def run(*_, **__):
        raise AssertionError("the language model ran")

    monkeypatch.setattr(vlm.model.lm_head, "forward", run)
    language = getattr(vlm.model.model, "language_model", None) or vlm.model.model.text_model
    monkeypatch.setattr(language, "forward", run)
    images = make_pictures(vlm.image_size)
    options = {"eps": "4/255", "seeds": torch.arange(2)}

    start = attack_encoder(vlm, images, num_steps=1, step_size=0.0, **options)
    attacked = attack_encoder(vlm, images, num_steps=4, **options)

    assert (distance(vlm, attacked, images) > 1.5 * distance(vlm, start, images)).all()
    levels = attacked * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert (attacked - images).abs().amax() <= 4.001 / 255 and not attacked.requires_grad


def test_distances_are_means_over_tokens(llava, monkeypatch):
    images, losses = make_pictures(16), []
    moved = (images + 4 / 255).clamp(0, 1)
    monkeypatch.setattr(module, "pgd", lambda *_, loss_fn, **__: losses.append(loss_fn(moved).detach()) or images)
    for name in ("l2", "cosine"):
        attack_encoder(llava, images, eps="4/255", distance=name)

    with torch.no_grad():
        one, two = llava.features(moved), llava.features(images)
    cosines = (one * two).sum(-1) / one.norm(dim=-1) / two.norm(dim=-1)
    torch.testing.assert_close(losses[0], (one - two).pow(2).sum(2).mean(1))
    torch.testing.assert_close(losses[1], 1 - cosines.mean(1), rtol=1e-4, atol=1e-6)


def test_it_changes_what_the_embedded_llava_writes():
    llava = load_vlm(str(EMOJI / "llava"))
    images = pixels_of(llava, emoji_questions.load_rows("test")[7::300])
    asked = [NAME] * len(images)
    texts = llava.write(images, asked)
    attacked = attack_encoder(llava, images, eps="8/255", num_steps=10)
    changed = sum(one != two for one, two in zip(llava.write(attacked, asked), texts, strict=True))
    assert changed >= len(images) / 2
    same = attack_encoder(llava, images, eps=0, num_steps=2)
    assert llava.write(same, asked) == texts


def test_what_cannot_work_is_refused(llava):
    images = make_pictures(16)
    with pytest.raises(ValueError, match="There is no distance 'l1'"):
        attack_encoder(llava, images, eps="4/255", distance="l1")
    with pytest.raises(ValueError, match="random_start=False"):
        attack_encoder(llava, images, eps="4/255", random_start=False)
    with pytest.raises(ValueError, match=r"takes \[B,3,16,16\]"):
        attack_encoder(llava, images[..., :8], eps="4/255")
    with pytest.raises(ValueError, match="no images"):
        attack_encoder(llava, images[:0], eps="4/255")
