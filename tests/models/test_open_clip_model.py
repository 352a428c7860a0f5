"""Through the real open_clip: what it pushes opens here with its values, and what it alone can build is evaluated."""

import copy
import json
from pathlib import Path

import pytest
import torch
from support.open_clip import tecoa
from support.published import base_folder, saved
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor

from hf_pmgaft import ZeroShotDataset, at_resolution, evaluate_robustness, load_model
from hf_pmgaft.models import get_encoder
from hf_pmgaft.models.open_clip_config import open_clip_config
from hf_pmgaft.tuning.saved import load_pair

open_clip = pytest.importorskip("open_clip")

VISION = dict(image_size=32, layers=2, width=64, head_width=32, patch_size=8)
TEXT = dict(width=32, heads=2, layers=2)
CONVNEXT = dict(timm_model_name="convnext_atto", timm_model_pretrained=False, timm_pool="", image_size=32)
# What CLIPS and its kin look like: no first norm, averaged patches
AVERAGED = {**VISION, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
TEXTS = ["a photo of a red disc", "a blue square"]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pushed(folder: Path, **model_cfg):
    """A model of open_clip with random weights, and its folder as open_clip pushes it."""
    torch.manual_seed(0)
    model_cfg = {"embed_dim": 48, "text_cfg": TEXT, **model_cfg}
    kind = open_clip.CustomTextCLIP if model_cfg.get("custom_text") else open_clip.CLIP
    built = {key: value for key, value in copy.deepcopy(model_cfg).items() if key != "custom_text"}
    model = kind(**built).eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return model


def pixels(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("custom_text", [True, False])
def test_a_repository_opens_with_the_values_that_open_clip_gives(quick_gelu, custom_text, tmp_path):
    other = pushed(tmp_path, vision_cfg=VISION, quick_gelu=quick_gelu, custom_text=custom_text)
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS)

    model = load_model(str(tmp_path))

    output = model(pixel_values=pixels(32), input_ids=ids)
    close(output.image_embeds, other.encode_image(pixels(32), normalize=True))
    close(output.text_embeds, other.encode_text(ids, normalize=True))
    close(model.logit_scale, other.logit_scale)


def test_a_file_of_tecoa_gives_the_features_of_open_clips_tower(tmp_path):
    base = base_folder(tmp_path / "base")
    config = open_clip_config(make_model().config, make_processor())["model_cfg"]
    torch.manual_seed(2)
    other = open_clip.CLIP(**config).eval()
    file = saved(tecoa(other), tmp_path / "model_best.pth.tar")

    model, _ = load_pair(str(file), base_model=str(base))

    close(get_encoder(model).image_embeds(model, pixels(16)), other.encode_image(pixels(16)))


def test_the_processor_prepares_images_as_open_clip_does(tmp_path):
    pushed(tmp_path, vision_cfg=AVERAGED)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    _, processor = load_pair(str(tmp_path))
    image = make_images(1)[0]["image"].resize((50, 40))
    expected = transform(image)
    # By Pillow on both sides, whose 8 bits round before or after the crop.
    found = processor.image_processor(image, return_tensors="pt").pixel_values[0]
    assert (found - expected).abs().max() <= 1.01 / 255 / 0.5


@pytest.mark.parametrize("vision", [AVERAGED, CONVNEXT], ids=["averaged patches", "ConvNeXt"])
def test_what_it_alone_can_build_is_evaluated_with_its_values(vision, tmp_path):
    other = pushed(tmp_path, vision_cfg=vision)
    model, processor = load_pair(str(tmp_path))
    ids = processor.tokenizer(TEXTS)["input_ids"]
    encoder = get_encoder(model)

    close(encoder.image_embeds(model, pixels(32)), other.encode_image(pixels(32)))
    close(encoder.text_embeds(model, ids, torch.ones_like(ids)), other.encode_text(ids))
    assert ids.tolist() == open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS).tolist()

    data = ZeroShotDataset(make_images(8), processor, CLASS_NAMES, "a photo of the {}")
    with torch.enable_grad():
        report = evaluate_robustness(model, processor, {"shapes": data}, ["pgd,eps=8/255,num_steps=2"], progress=False)
    images = torch.stack([data[row]["images"] for row in range(8)])
    texts = other.encode_text(processor.tokenizer([f"a photo of the {n}" for n in CLASS_NAMES])["input_ids"])
    found = (other.encode_image((images - 0.5) / 0.5) @ torch.nn.functional.normalize(texts).T).argmax(1)
    labels = torch.tensor([data[row]["labels"] for row in range(8)])
    assert report.mean_clean_accuracy == pytest.approx((found == labels).float().mean().item())
    assert report.mean_robust_accuracy <= report.mean_clean_accuracy


def test_it_has_one_resolution_and_needs_its_own_weights(tmp_path):
    pushed(tmp_path, vision_cfg=AVERAGED)
    model, processor = load_pair(str(tmp_path))
    with pytest.raises(ValueError, match="image_size=64 for a OpenClipModel"):
        at_resolution(model, processor, 64)
    torch.save({"visual.proj": torch.zeros(2)}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match="are not those of its open_clip_config.json: missing"):
        load_model(str(tmp_path))
