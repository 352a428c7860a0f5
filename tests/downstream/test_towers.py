"""What people do with a robust vision tower: other classes of transformers, exports, and LLaVA."""

import copy

import pytest
import torch
from support.llava import equal_weights, make_llava, tuned_by_lora
from support.open_clip import TEXTS
from support.tiny import make_model
from torch import nn
from transformers import (
    CLIPForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlavaForConditionalGeneration,
)

from hf_pmgaft import load_model, swap_vision_tower, vision_tower


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


# --- the classes of transformers


def test_vision_model_gives_the_hidden_states_of_the_tuned_clip(robust, pixel_values):
    model = CLIPModel.from_pretrained(robust)
    tower = CLIPVisionModel.from_pretrained(robust)

    expected, found = model.vision_model(pixel_values), tower(pixel_values)

    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=0)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=0, atol=0)


def test_vision_model_with_projection_gives_the_image_embeddings(robust, pixel_values):
    tower = CLIPVisionModelWithProjection.from_pretrained(robust)

    expected = CLIPModel.from_pretrained(robust)(pixel_values=pixel_values, input_ids=TEXTS).image_embeds
    found = nn.functional.normalize(tower(pixel_values).image_embeds)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_image_classifier_starts_from_the_features_of_the_tuned_clip(robust, pixel_values):
    classifier = CLIPForImageClassification.from_pretrained(robust, num_labels=5)

    patches = CLIPModel.from_pretrained(robust).vision_model(pixel_values).last_hidden_state[:, 1:]

    torch.testing.assert_close(classifier(pixel_values).logits, classifier.classifier(patches.mean(1)))


def test_exported_tower_gives_equal_embeddings_at_any_batch_size(robust, pixel_values, tmp_path):
    tower = CLIPVisionModelWithProjection.from_pretrained(robust).eval()
    batch = {0: torch.export.Dim.DYNAMIC}

    program = torch.export.export(tower, (pixel_values[:2],), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "tower.pt2")
    found = torch.export.load(tmp_path / "tower.pt2").module()(pixel_values)

    torch.testing.assert_close(found["image_embeds"], tower(pixel_values).image_embeds, rtol=0, atol=1e-6)


def test_onnx_tower_gives_equal_embeddings(robust, pixel_values, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    tower = CLIPVisionModelWithProjection.from_pretrained(robust).eval()

    torch.onnx.export(tower, (pixel_values,), tmp_path / "tower.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "tower.onnx")
    found, *_ = session.run(None, {session.get_inputs()[0].name: pixel_values.numpy()})

    torch.testing.assert_close(torch.from_numpy(found), tower(pixel_values).image_embeds, rtol=0, atol=1e-5)


# --- LLaVA


def image_features(llava, pixel_values):
    return torch.stack(list(llava.get_image_features(pixel_values).pooler_output))


@pytest.mark.parametrize("layer, strategy", [(-2, "default"), (-1, "full"), ([-3, -1], "default")])
def test_llava_looks_through_the_robust_tower(robust, pixel_values, layer, strategy):
    llava = make_llava(vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    model = load_model(str(robust))
    before = image_features(llava, pixel_values)

    swap_vision_tower(llava, model)

    states = model.vision_model(pixel_values, output_hidden_states=True).hidden_states
    chosen = torch.cat([states[i] for i in (layer if isinstance(layer, list) else [layer])], dim=-1)
    expected = llava.model.multi_modal_projector(chosen[:, 1:] if strategy == "default" else chosen)
    found = image_features(llava, pixel_values)
    assert found.shape == before.shape and found.dtype == before.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.allclose(found, before)


def test_swap_leaves_every_other_weight_and_all_shapes_and_types(robust):
    llava, model = make_llava(torch.bfloat16), load_model(str(robust)).bfloat16()
    before = copy.deepcopy(llava.state_dict())

    swap_vision_tower(llava, model)

    after = llava.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("vision_tower" in name for name in changed)
    assert {n: (v.shape, v.dtype) for n, v in before.items()} == {n: (v.shape, v.dtype) for n, v in after.items()}
    assert equal_weights(vision_tower(llava), vision_tower(model))
    assert vision_tower(llava) is not vision_tower(model)


def test_llava_answers_by_what_the_new_tower_sees(robust, pixel_values):
    llava = make_llava()
    ids = torch.tensor([[1, *[39] * 16, 5, 6]])
    before = llava(input_ids=ids, pixel_values=pixel_values[:1]).logits

    swap_vision_tower(llava, load_model(str(robust)))

    after = llava(input_ids=ids, pixel_values=pixel_values[:1]).logits
    assert after.shape == before.shape
    assert not torch.allclose(after, before)


def test_a_swapped_llava_is_saved_and_loaded_as_any(robust, pixel_values, tmp_path):
    llava = make_llava()
    swap_vision_tower(llava, load_model(str(robust)))

    llava.save_pretrained(tmp_path)
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path)

    torch.testing.assert_close(image_features(again, pixel_values), image_features(llava, pixel_values))


@pytest.mark.parametrize("kind", ["vision_model", "with_projection", "classifier", "lora", "llava"])
def test_the_tower_may_come_from_any_model_that_has_one(robust, kind, pixel_values):
    donor = {
        "vision_model": lambda: CLIPVisionModel.from_pretrained(robust),
        "with_projection": lambda: CLIPVisionModelWithProjection.from_pretrained(robust),
        "classifier": lambda: CLIPForImageClassification.from_pretrained(robust, num_labels=2),
        "lora": tuned_by_lora,
        "llava": lambda: make_llava(vision_feature_layer=1),  # the same as -2 of two layers
    }[kind]()
    expected = vision_tower(donor)(pixel_values).pooler_output
    llava = make_llava()

    swap_vision_tower(llava, donor)

    torch.testing.assert_close(vision_tower(llava)(pixel_values).pooler_output, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "vision, message",
    [
        ({"hidden_size": 48}, r"class_embedding is \[48\] in place of \[32\]"),
        ({"num_hidden_layers": 3}, r"unexpected: .*encoder\.layers\.2"),
        ({"num_hidden_layers": 1}, r"missing: .*encoder\.layers\.1"),
        ({"patch_size": 8}, r"patch_embedding\.weight is \[32, 3, 8, 8\] in place of \[32, 3, 4, 4\]"),
        ({"image_size": 32}, r"position_embedding\.weight is \[65, 32\] in place of \[17, 32\]"),
        ({"num_attention_heads": 4}, "num_attention_heads is 4, not 2"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu, not quick_gelu"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06, not 1e-05"),
        ({"vision_feature_layer": -1}, "vision_feature_layer is -1, not -2"),
    ],
)
def test_a_tower_of_another_make_is_refused_by_name_and_nothing_changes(vision, message):
    config = {**make_model().config.vision_config.to_dict(), **vision}
    llava, tower = make_llava(), CLIPVisionModel(CLIPVisionConfig(**config))
    before = copy.deepcopy(llava)

    with pytest.raises(ValueError, match=message):
        swap_vision_tower(llava, tower)

    assert equal_weights(llava, before)


def trained_for_the_last_layer() -> CLIPModel:
    model = make_model()
    model.config.vision_config.vision_feature_layer = -1
    return model


@pytest.mark.parametrize(
    "donor, message",
    [
        (lambda: make_model().half(), r"dtype is torch\.float16, not torch\.float32"),
        (trained_for_the_last_layer, "vision_feature_layer is -1, not -2"),
        (lambda: make_llava(vision_feature_layer=-1), "vision_feature_layer is -1, not -2"),
        (lambda: make_llava(vision_feature_layer=[-2, -1]), r"vision_feature_layer is \[-2, -1\], not -2"),
        (lambda: make_llava(vision_feature_select_strategy="full"), "select_strategy is full, not default"),
        (lambda: make_model().to("meta"), "meta device"),
    ],
)
def test_a_tower_of_another_dtype_or_hidden_layer_is_refused_by_name(donor, message):
    llava = make_llava()
    before = copy.deepcopy(llava)

    with pytest.raises(ValueError, match=message):
        swap_vision_tower(llava, donor())

    assert equal_weights(llava, before)


def test_what_has_no_vision_tower_is_refused():
    with pytest.raises(TypeError, match="Linear, which has no vision tower"):
        swap_vision_tower(make_llava(), nn.Linear(2, 2))
