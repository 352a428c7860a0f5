"""The zero-shot head: text embeddings, logits, views."""

import pytest
import torch
import torch.nn.functional as F
from support.tiny import CLASS_NAMES, make_model

from hf_pmgaft.engines import prepare_for_engines
from hf_pmgaft.models.backbones import get_backbone
from hf_pmgaft.prompts import check_prompt_templates, prompt_name
from hf_pmgaft.zero_shot import Views, ZeroShotClassifier, encode_class_names

TEMPLATES = ["a photo of {}", "an image of the {}"]


def test_class_embeddings_are_normalised_per_template_then_averaged_then_normalised(model, processor):
    embeds = encode_class_names(model, processor, CLASS_NAMES, TEMPLATES)

    for k, name in enumerate(CLASS_NAMES):
        parts = []
        for template in TEMPLATES:
            tokens = processor.tokenizer(template.format(name), return_tensors="pt")
            text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
            parts.append(text[0] / text[0].norm())
        mean = (parts[0] + parts[1]) / 2
        torch.testing.assert_close(embeds[k], mean / mean.norm())


def test_text_embeddings_do_not_depend_on_the_batch_or_on_padding(model, processor):
    names = [*CLASS_NAMES, "red disc of the blue square of the green disc"]
    together = encode_class_names(model, processor, names, TEMPLATES)
    one_by_one = encode_class_names(model, processor, names, TEMPLATES, batch_size=1)
    torch.testing.assert_close(together, one_by_one)


def test_class_names_are_lower_cased_and_separators_become_spaces():
    assert prompt_name("Tree_Frog-or/Toad") == "tree frog or toad"


def test_logits_are_those_of_clip_itself(model, processor, images):
    embeds = encode_class_names(model, processor, CLASS_NAMES, "a photo of {}")
    classifier = ZeroShotClassifier.from_model(model, processor, embeds)
    text = [f"a photo of {name}" for name in CLASS_NAMES]
    inputs = processor(text=text, images=images[:5]["image"], return_tensors="pt", padding=True)
    pixels = processor.image_processor(images[:5]["image"], return_tensors="pt", do_normalize=False)["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixels), model(**inputs).logits_per_image, atol=1e-4, rtol=1e-5)


def test_image_embeddings_are_projected_once_where_hidden_and_projection_widths_differ(model):
    assert model.config.vision_config.hidden_size != model.config.projection_dim
    pixels = torch.rand(2, 3, 16, 16)
    embeds = get_backbone(model).image_embeds(model, pixels)
    pooled = model.vision_model(pixels).pooler_output
    torch.testing.assert_close(embeds, model.visual_projection(pooled))
    tower = get_backbone(model).vision_copy(model)
    torch.testing.assert_close(tower(pixels), embeds)
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_texts_are_encoded_without_dropout_by_a_model_in_train_mode(model, processor):
    expected = encode_class_names(model, processor, CLASS_NAMES, TEMPLATES)
    for layer in model.text_model.encoder.layers:
        layer.self_attn.dropout = 0.8
    model.train()
    assert torch.equal(encode_class_names(model, processor, CLASS_NAMES, TEMPLATES), expected)
    assert model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_in_float32_under_autocast_at_scale_100(dtype):
    torch.manual_seed(0)
    embeds, texts, guidance, captions = (torch.randn(size, 24) for size in (5, 4, 6, 5))
    texts, guidance, captions = (F.normalize(part, dim=-1) for part in (texts, guidance, captions))
    classifier = ZeroShotClassifier(None, texts, 100.0, [0.0] * 3, [1.0] * 3, guidance_embeds=guidance)
    classifier.caption_embeds = captions
    embeds = embeds.to(dtype)
    units = F.normalize(embeds.float(), dim=-1)
    expected = {
        "logits": 100 * units @ texts.T,
        "guidance_logits": 100 * units @ guidance.T,
        "caption_logits": 100 * units @ captions.T,
        "image_logits": 100 * captions @ units.T,
    }

    with torch.autocast("cpu", torch.bfloat16):
        found = {name: getattr(classifier, name)(embeds) for name in expected}

    for name, values in expected.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-4, msg=name)


def test_small_images_are_resized_in_the_graph_and_keep_their_gradient(model, processor):
    embeds = encode_class_names(model, processor, CLASS_NAMES)
    classifier = ZeroShotClassifier.from_model(model, processor, embeds)
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    gradient = torch.autograd.grad(classifier(images).sum(), images)[0]
    assert gradient.shape == (2, 3, 8, 8) and gradient.abs().sum() > 0
    bigger = F.interpolate(images.detach(), (16, 16), mode="bicubic", align_corners=False)
    torch.testing.assert_close(classifier(images), classifier(bigger))


def test_logit_scale_becomes_a_buffer_with_the_same_checkpoint_keys(model, tmp_path):
    keys = set(model.state_dict())
    value = model.logit_scale.item()
    prepare_for_engines(model)
    assert set(model.state_dict()) == keys
    assert "logit_scale" not in dict(model.named_parameters())
    model.save_pretrained(tmp_path)
    reloaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert reloaded.logit_scale.item() == pytest.approx(value)


def test_views_compute_what_is_asked_for_once_and_keep_it():
    passes = []

    def encode(pixels):
        passes.append(len(pixels))
        return pixels.flatten(1)

    classifier = ZeroShotClassifier(encode, F.normalize(torch.randn(4, 12)), 10.0, [0.0] * 3, [1.0] * 3)
    views = Views(classifier, torch.rand(2, 3, 2, 2))
    assert passes == []
    assert views.clean_logits is views.clean_logits and views.clean_embeds is not None
    assert passes == [2]
    both = views.on(torch.rand(2, 3, 2, 2))
    assert both.clean_logits is views.clean_logits
    assert set(both.computed()) == {"clean_embeds", "clean_logits"}
    assert both.adversarial_logits.shape == (2, 4)
    assert passes == [2, 2]


@pytest.mark.parametrize("templates", [[], "a photo", ["{} and {}"]])
def test_templates_take_exactly_one_name(templates):
    with pytest.raises(ValueError, match="cannot take a class name"):
        check_prompt_templates(templates)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "share the name 'a'"),
        (["tree_frog", "Tree frog"], "Classes 0 and 1 share the name"),
        (["a", " "], r"\[1\] are empty"),
        (["a"], "at least 2"),
    ],
)
def test_duplicate_or_empty_class_names_are_refused(model, processor, names, message):
    with pytest.raises(ValueError, match=message):
        encode_class_names(model, processor, names)


def test_a_model_that_is_no_dual_encoder_is_refused():
    with pytest.raises(TypeError, match="You passed a CLIPVisionTransformer|You passed a .*needs an image and a text"):
        get_backbone(make_model().vision_model)
