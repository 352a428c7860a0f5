"""Attention to the class text, and the example that shows it."""

import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from PIL import Image
from support.paths import EXAMPLES
from support.tiny import CLASS_NAMES, SIZE
from transformers import CLIPVisionModel

from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.models.backbones import get_backbone
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names
from hf_pmgaft.zero_shot.views import text_attention

PATCH = 4


@pytest.fixture(scope="module")
def script():
    import gallery

    yield gallery


@pytest.fixture
def model(model):
    """Layer norms that can be told apart, which they cannot as they are initialised."""
    with torch.no_grad():
        for norm in (model.vision_model.pre_layrnorm, model.vision_model.post_layernorm):
            norm.weight.add_(0.5 * torch.randn_like(norm.weight))
            norm.bias.add_(0.5 * torch.randn_like(norm.bias))
    return model


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def tokens_by_hand(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """All tokens, the class token first, in the space of the embeddings: `[B,1+P,D]`."""
    vision = model.vision_model
    states = vision.pre_layrnorm(vision.embeddings(pixel_values))
    for block in vision.encoder.layers:
        states = block(states, None)
    return vision.post_layernorm(states) @ model.visual_projection.weight.T


def patch_embeds(model, pixel_values: torch.Tensor) -> torch.Tensor:
    return get_backbone(model).image_and_patch_embeds(model, pixel_values)[1]


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


def test_a_look_holds_images_attention_and_predictions_clean_and_attacked(script, model, processor, images):
    data = ZeroShotDataset(images, processor, None, "a photo of the {}")
    rows, spec = [1, 6, 7], AttackSpec.of({"attack": "pgd", "eps": "8/255", "num_steps": 5, "loss": "margin"})
    for block in model.vision_model.encoder.layers:
        block.self_attn.dropout = 0.5  # which must not act
    model.train()
    found = script.look(model, processor, data, rows, spec, seed=0)

    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    clean, attacked = found["images"]
    torch.testing.assert_close(clean, torch.stack([data[row]["images"] for row in rows]))
    assert spec.allows(clean, attacked).all() and not torch.equal(clean, attacked)
    embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
    classifier = ZeroShotClassifier.from_model(model.eval(), processor, embeds)
    mean, std = classifier.mean, classifier.std
    for view, batch in enumerate((clean, attacked)):
        assert found["predictions"][view].tolist() == classifier(batch).argmax(1).tolist()
        tokens = F.normalize(tokens_by_hand(model, (batch - mean) / std)[:, 1:], dim=-1)
        for i, row in enumerate(rows):
            expected = (tokens[i] @ embeds[data[row]["labels"]]).view(4, 4)
            torch.testing.assert_close(found["attention"][view, i], expected)
    losses = [
        F.cross_entropy(classifier(batch), torch.tensor([data[r]["labels"] for r in rows]))
        for batch in (clean, attacked)
    ]
    assert losses[1] > losses[0]


def test_the_example_draws_the_embedded_model(script, tmp_path, capsys):
    file = tmp_path / "gallery.png"
    script.main(["--num_images", "2", "--num_steps", "3", "--output_file", str(file)])
    assert str(file) in capsys.readouterr().out
    with Image.open(file) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 300
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 1000


def test_models_are_named_by_the_parts_that_tell_them_apart(script):
    assert script.row_names(["outputs/plain", "a/b/robust"]) == ["outputs/plain", "b/robust"]
    assert script.row_names(["x/a/merged", "y/a/merged"]) == ["x/a/merged", "y/a/merged"]
    with pytest.raises(ValueError, match="twice"):
        script.row_names(["a", "a"])


def run(monkeypatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gallery.py", *argv])
    runpy.run_path(str(EXAMPLES / "gallery.py"), run_name="__main__")


def test_help_teaches(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "python examples/gallery.py --models" in printed
    assert "--eval_set" in printed and "2410.21802" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_images", "0"], "leaves nothing to show. Pass 1 or more"),
        (["--eps", "4"], "write 4/255"),
        (["--eval_set", "nowhere.parquet"], "error: "),
        (["--models", "nowhere"], "error: "),
    ],
)
def test_what_cannot_work_ends_with_one_line(monkeypatch, argv, message):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *argv)
    assert str(stopped.value.code).startswith("error: ") and message in str(stopped.value.code)
