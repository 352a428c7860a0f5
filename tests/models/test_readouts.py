"""Readouts of a last block: against golden values, an independent transcription, and what may have become of it."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from support.families import make
from support.patches import patch_embeds as plain_patch_embeds
from support.patches import pixels, vary_layer_norms
from support.tiny import make_model
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from hf_pmgaft.models.backbones import BACKBONES, get_backbone
from hf_pmgaft.models.lean import lean
from hf_pmgaft.models.readouts import OTHERS, READOUTS, check_readout, patch_embeds
from hf_pmgaft.tuning import fold_into_clip, make_tuning

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["readouts"]
SERVED = sorted(name for name, row in BACKBONES.items() if row.patches is not None and name not in OTHERS)
readouts = pytest.mark.parametrize("readout", sorted(READOUTS))


def golden_model() -> CLIPModel:
    """A CLIP of one vision block in float64, which has the golden weights."""
    vision = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=GOLDEN["heads"])
    vision.update(image_size=6, patch_size=2, intermediate_size=len(GOLDEN["weights"]["mlp.fc1.bias"]))
    text = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    text.update(eos_token_id=1, bos_token_id=0, pad_token_id=1)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).double().eval()

    weights = {name: golden(value) for name, value in GOLDEN["weights"].items()}
    own = model.state_dict()
    for name, value in weights.items():
        prefix = {"post_layernorm": "vision_model.", "visual_projection": ""}.get(
            name.partition(".")[0], "vision_model.encoder.layers.0."
        )
        assert own[prefix + name].shape == value.shape
        own[prefix + name].copy_(value)
    return model


def golden(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def assert_golden(found: torch.Tensor, expected) -> None:
    expected = golden(expected)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def by_hand(model, pixel_values: torch.Tensor, readout: str) -> torch.Tensor:
    """The patch tokens of a CLIP, `[B,N,D]`, written from the table of equations."""
    vision = model.vision_model
    x = vision.pre_layrnorm(vision.embeddings(pixel_values))
    *first, last = vision.encoder.layers
    for block in first:
        x = block(x, None)

    heads, attention = last.self_attn.num_heads, last.self_attn
    h = last.layer_norm1(x)
    q, k, v = (
        torch.stack(layer(h).chunk(heads, dim=-1), dim=1)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    width = q.shape[-1]

    def scores(a, b):
        return (a @ b.mT / width**0.5).softmax(-1)

    weights = {
        "vanilla": lambda: scores(q, k),
        "maskclip": lambda: torch.eye(h.shape[1], dtype=h.dtype),
        "sclip": lambda: scores(q, q) + scores(k, k),
        "clearclip": lambda: scores(q, q),
    }[readout]()
    z = attention.out_proj(torch.cat((weights @ v).unbind(1), dim=-1))
    if readout != "clearclip":
        z = x + z
        z = z + last.mlp(last.layer_norm2(z))
    return model.visual_projection(vision.post_layernorm(z))[:, 1:]


# ---- Values ----


@readouts
def test_patch_embeddings_and_the_gradient_of_tokens_are_the_golden_ones(readout):
    model, case = golden_model(), GOLDEN["cases"][readout]
    tokens = golden(GOLDEN["tokens"]).requires_grad_()
    model.vision_model.pre_layrnorm.register_forward_hook(lambda *_: tokens)

    patches = patch_embeds(model, torch.rand(len(tokens), 3, 6, 6).double(), readout)
    assert_golden(patches.flatten(1, 2), case["patch_embeds"])
    assert READOUTS[readout].is_whole == case["residual"] == case["mlp"]

    of_first_names = F.normalize(patches, dim=-1) @ golden(GOLDEN["query_embeds"])[[0, 2, 3]].T
    logits = 40 * F.interpolate(of_first_names.permute(0, 3, 1, 2), (6, 6), mode="bilinear")
    loss = F.cross_entropy(logits, torch.tensor(GOLDEN["labels"]), ignore_index=-1)
    assert_golden(loss, case["loss"])
    assert_golden(torch.autograd.grad(loss, tokens)[0], case["gradient_of_tokens"])


@readouts
def test_patch_embeddings_and_pixel_gradients_are_those_of_a_transcription(readout):
    model = vary_layer_norms(make_model()).double()
    images = pixels().double().requires_grad_()
    patches, expected = patch_embeds(model, images, readout), by_hand(model, images, readout)
    torch.testing.assert_close(patches.flatten(1, 2), expected)

    direction = torch.randn_like(expected)
    found = torch.autograd.grad((patches.flatten(1, 2) * direction).sum(), images)[0]
    wanted = torch.autograd.grad((expected * direction).sum(), images)[0]
    assert wanted.abs().amax() > 0
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", SERVED)
def test_families_have_readouts_that_differ_and_the_plain_one_as_it_is(name):
    model = make(name)
    found = {readout: patch_embeds(model, pixels(), readout) for readout in READOUTS}
    torch.testing.assert_close(found["vanilla"], plain_patch_embeds(model, pixels()), atol=1e-5, rtol=1e-5)
    others = [found[readout] for readout in sorted(READOUTS)]
    for number, one in enumerate(others):
        for other in others[number + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_values_alone_mix_no_tokens_in_blip_either():
    model = make("BlipModel")
    for block in model.vision_model.encoder.layers[:-1]:
        torch.nn.init.zeros_(block.self_attn.projection.weight)
    changed = pixels()
    changed[0, :, 4:8, 8:12] += 1
    moved = (patch_embeds(model, changed, "maskclip") - patch_embeds(model, pixels(), "maskclip")).abs().amax(-1)
    assert (moved > 1e-5).nonzero().tolist() == [[0, 1, 2]]


# ---- What may have become of the block ----


@readouts
def test_a_tuned_tower_is_read_out_as_the_plain_one_that_it_folds_into(readout):
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "out_proj", "fc1"], init_lora_weights=False)
    adapted = get_peft_model(make_model(), lora).eval()
    patches = patch_embeds(adapted, pixels(), readout)
    merged = copy.deepcopy(adapted).merge_and_unload()
    torch.testing.assert_close(patches, patch_embeds(merged, pixels(), readout), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(patches, patch_embeds(make_model(), pixels(), readout), atol=1e-2)

    with_adapters = make_tuning("r_adapter").prepare(make_model())
    for adapter in with_adapters.tuning.adapters.values():
        torch.nn.init.normal_(adapter.weight, std=0.3)
    folded = fold_into_clip(with_adapters)
    patches = patch_embeds(with_adapters, pixels(), readout)
    torch.testing.assert_close(patches, patch_embeds(folded, pixels(), readout), atol=1e-4, rtol=1e-4)


@readouts
def test_learned_tokens_take_part_and_are_no_patches(readout):
    model = make_model()
    before = patch_embeds(model, pixels(), readout)
    tuned = make_tuning("deep_prompts", {"num_tokens": 2, "depth": 1}).prepare(model)
    torch.nn.init.normal_(tuned.tuning.blocks[0].vectors.weight, std=3.0)
    patches = patch_embeds(tuned, pixels(), readout)
    assert patches.shape == before.shape and not torch.allclose(patches, before, atol=1e-3)


@readouts
def test_what_is_trained_gets_gradients_and_the_model_is_left_as_it_was(readout):
    model = make_model()
    patch_embeds(model, pixels(), readout).square().sum().backward()
    attention = model.vision_model.encoder.layers[-1].self_attn
    assert attention.v_proj.weight.grad.abs().sum() > 0
    assert (attention.q_proj.weight.grad is None) == (readout == "maskclip")
    assert not any("forward" in vars(module) for module in model.modules())

    # Passes for embeddings alone are as lean as ever, and as right.
    embeds = get_backbone(model).image_embeds(model, pixels())
    torch.testing.assert_close(embeds, get_backbone(make_model()).image_embeds(make_model(), pixels()))
    with lean(model, model):
        pass
    torch.testing.assert_close(
        patch_embeds(model, pixels(), readout), patch_embeds(make_model(), pixels(), readout), rtol=0, atol=0
    )


# ---- What is refused ----


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_families_of_other_blocks_are_read_out_as_they_are_alone(name):
    model = make(name)
    torch.testing.assert_close(patch_embeds(model, pixels(), "vanilla"), plain_patch_embeds(model, pixels()))
    with pytest.raises(ValueError, match=f"a {name} to be read out by 'sclip', but it .*'vanilla', or .*CLIPModel"):
        check_readout(model, "sclip")


def test_models_without_patch_tokens_and_unknown_readouts_are_refused():
    with pytest.raises(
        ValueError, match="a VisionTextDualEncoderModel to be read out by 'sclip', but it has no patch"
    ):
        check_readout(make("VisionTextDualEncoderModel"), "sclip")
    with pytest.raises(ValueError, match="no readout 'clip'"):
        check_readout(make_model(), "clip")
    with pytest.raises(TypeError, match="CLIPVisionModel, but zero-shot classification needs"):
        check_readout(CLIPVisionModel(make_model().config.vision_config), "sclip")


def test_every_family_with_patches_is_served_or_says_why_not():
    assert set(OTHERS) <= set(BACKBONES)
    for name in SERVED:
        for readout in READOUTS:
            check_readout(make(name), readout)
