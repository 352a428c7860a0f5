"""Attention to the class text: how well each patch fits it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.patches import PATCH, patch_embeds, pixels, tokens_by_hand, vary_layer_norms
from support.tiny import CLASS_NAMES, SIZE
from transformers import CLIPVisionModel

from hf_pmgaft.models.backbones import get_backbone
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names
from hf_pmgaft.zero_shot.views import text_attention


@pytest.fixture
def model(model):
    return vary_layer_norms(model)


def test_patch_embeddings_take_the_way_of_the_image_embedding(model):
    assert model.config.vision_config.hidden_size != model.config.projection_dim
    backbone, expected = get_backbone(model), tokens_by_hand(model, pixels())
    embeds, patches = backbone.image_and_patch_embeds(model, pixels())
    assert patches.shape == (2, SIZE // PATCH, SIZE // PATCH, model.config.projection_dim)
    torch.testing.assert_close(patches.flatten(1, 2), expected[:, 1:])
    torch.testing.assert_close(embeds, expected[:, 0])
    torch.testing.assert_close(backbone.image_embeds(model, pixels()), embeds, atol=1e-5, rtol=1e-5)  # a leaner pass
    torch.testing.assert_close(backbone.vision_copy(model).with_patches(pixels()), (embeds, patches))


def test_patch_embeddings_lie_where_the_patches_are(model):
    with torch.no_grad():  # without attention a token sees its own patch alone
        for block in model.vision_model.encoder.layers:
            block.self_attn.out_proj.weight.zero_()
    changed = pixels()
    changed[0, :, 1 * PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] += 1
    moved = (patch_embeds(model, changed) - patch_embeds(model, pixels())).abs().amax(-1) > 1e-5
    assert moved.nonzero().tolist() == [[0, 1, 2]]


def test_attention_is_the_cosine_of_each_patch_with_the_text(model):
    patches, texts = patch_embeds(model, pixels()), torch.randn(2, 24)
    attention = text_attention(patches, texts)
    assert attention.shape == (2, 4, 4)
    for image in range(2):
        for row in range(4):
            for column in range(4):
                patch, text = patches[image, row, column], texts[image]
                cosine = (patch @ text) / patch.norm() / text.norm()
                torch.testing.assert_close(attention[image, row, column], cosine)


def test_attention_is_computed_in_full_precision_under_autocast(model):
    patches, texts = patch_embeds(model, pixels()).detach(), torch.randn(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        attention = text_attention(patches, texts)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention, text_attention(patches, texts), rtol=0, atol=0)
    assert text_attention(patches.double(), texts).dtype == torch.float64


def test_attention_has_a_gradient_to_pixels_and_vision_tower(model, processor):
    embeds = encode_class_names(model, processor, CLASS_NAMES)
    classifier = ZeroShotClassifier.from_model(model, processor, embeds)
    patches = classifier.by(lambda pixel_values: patch_embeds(model, pixel_values))
    images = torch.rand(2, 3, 8, 8, requires_grad=True)  # resized in the graph
    text_attention(patches.embed(images), embeds[:2]).square().sum().backward()
    assert (images.grad.abs().amax((1, 2, 3)) > 0).all()
    assert model.vision_model.post_layernorm.weight.grad.abs().sum() > 0
    assert model.visual_projection.weight.grad.abs().sum() > 0


def test_attention_of_a_peft_model_is_that_of_its_adapted_tower(model):
    config = LoraConfig(r=2, target_modules=["q_proj", "visual_projection"], init_lora_weights=False)
    before = patch_embeds(model, pixels())
    adapted = get_peft_model(model, config).eval()
    patches = patch_embeds(adapted, pixels())
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(patches, patch_embeds(merged, pixels()), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(patches, before, atol=1e-2)


def test_a_model_without_a_text_tower_is_refused(model):
    tower = CLIPVisionModel(model.config.vision_config)
    with pytest.raises(TypeError, match="CLIPVisionModel, but zero-shot classification needs"):
        get_backbone(tower)
