"""Through the real open_clip: what it pushes opens here with its values, and what it alone can build is evaluated."""

import copy
import json
from pathlib import Path

import pytest
import torch
from support.open_clip import tecoa
from support.open_clip_zoo import FAMILIES, make_timm_small, push, save_tokenizer
from support.published import base_folder, saved
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor

from hf_pmgaft import (
    PMGAFTConfig,
    PMGAFTTrainer,
    RetrievalDataset,
    ZeroShotDataset,
    at_resolution,
    evaluate_robustness,
    load_model,
    load_open_clip,
    to_open_clip,
)
from hf_pmgaft.cli.convert import main as convert
from hf_pmgaft.models import get_encoder
from hf_pmgaft.models.open_clip_config import open_clip_config
from hf_pmgaft.tuning.saved import load_pair
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

open_clip = pytest.importorskip("open_clip")

VISION = dict(image_size=32, layers=2, width=64, head_width=32, patch_size=8)
TEXT = dict(width=32, heads=2, layers=2)
CONVNEXT = dict(timm_model_name="convnext_atto", timm_model_pretrained=False, timm_pool="", image_size=32)
# What CLIPS and its kin look like: no first norm, averaged patches
AVERAGED = {**VISION, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
TEXTS = ["a photo of a red disc", "a blue square"]


PROMPT = "a photo of the {}"


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def small_towers(monkeypatch):
    make_timm_small(monkeypatch)


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


# ---- Every family by itself ----


def logits_of_open_clip(name: str, pixel_values: torch.Tensor) -> torch.Tensor:
    """As its own documentation makes them, of the classes of the tiny set; SigLIP's with the bias."""
    model = open_clip.create_model_and_transforms(name)[0].eval()
    texts = open_clip.get_tokenizer(name)([PROMPT.format(class_name) for class_name in CLASS_NAMES])
    images, texts = model.encode_image(pixel_values, normalize=True), model.encode_text(texts, normalize=True)
    bias = 0 if model.logit_bias is None else model.logit_bias
    return model.logit_scale.exp() * images @ texts.T + bias


def logits_here(model, processor, images: torch.Tensor) -> torch.Tensor:
    class_embeds = encode_class_names(model, processor, CLASS_NAMES, PROMPT)
    return ZeroShotClassifier.from_model(model, processor, class_embeds)(images)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_evaluated_at_the_logits_that_open_clip_gives(family, small_towers, tmp_path):
    other = push(family, tmp_path)
    name = f"local-dir:{tmp_path}"
    transform = open_clip.create_model_and_transforms(name)[2]
    model, processor = load_pair(name)

    images = torch.stack([transform(row["image"]) for row in make_images(4)])
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    in_unit_range = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    close(logits_here(model, processor, in_unit_range), logits_of_open_clip(name, images))
    # Un-normalised, as of every other model
    close(get_encoder(model).image_embeds(model, images), other.encode_image(images, normalize=False))

    data = ZeroShotDataset(make_images(4), processor, CLASS_NAMES, PROMPT)
    close(torch.stack([data[row]["images"] for row in range(4)]), in_unit_range)
    with torch.enable_grad():
        report = evaluate_robustness(model, processor, {"shapes": data}, ["pgd,eps=8/255,num_steps=2"], progress=False)
    assert 0 <= report.mean_robust_accuracy <= report.mean_clean_accuracy <= 1


def put_on(hub, name: str, folder: Path):
    return hub.put(name, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.mark.parametrize("name", ["timm/ViT-B-16-SigLIP", "owner/siglip"], ids=["tokenizer beside it", "elsewhere"])
def test_it_opens_from_the_hub_with_the_tokenizer_that_it_names(name, small_towers, hub, tmp_path):
    push("SigLIP", tmp_path / "model")
    if name == "owner/siglip":
        for file in (tmp_path / "model").glob("*token*"):
            file.unlink()
        save_tokenizer("SigLIP", tmp_path / "tokenizer")
        put_on(hub, "timm/ViT-B-16-SigLIP", tmp_path / "tokenizer")
    repo = put_on(hub, name, tmp_path / "model")

    model, processor = load_pair(f"hf-hub:{name}")

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    close(logits_here(model, processor, images), logits_of_open_clip(f"hf-hub:{name}", images * 2 - 1))
    assert model.config._commit_hash == repo.sha()


def test_recall_among_its_captions_is_evaluated_too(small_towers, tmp_path):
    push("CoCa", tmp_path)
    model, processor = load_pair(str(tmp_path))
    images = make_images(12).add_column("caption", [f"{number} discs and squares " * 9 for number in range(12)])
    data = RetrievalDataset(images, processor, caption_column="caption", name="captions")
    with torch.enable_grad():
        report = evaluate_robustness(model, processor, [data], ["pgd,eps=8/255,num_steps=1"], progress=False)
    assert [row.name for row in report.sets][:2] == ["captions I2T R@1", "captions I2T R@5"]


def test_it_is_neither_trained_nor_a_teacher_nor_converted_and_each_says_so(small_towers, tmp_path):
    name = str(tmp_path / "siglip")
    push("SigLIP", tmp_path / "siglip")
    args = PMGAFTConfig(output_dir=str(tmp_path / "run"), use_cpu=True)
    data = make_images(8)
    words = "siglip, which no CLIPModel can hold.*neither trained, converted nor a teacher"

    with pytest.raises(TypeError, match=words):
        PMGAFTTrainer(name, args, train_dataset=data)
    with pytest.raises(TypeError, match=words):
        PMGAFTTrainer(make_model(), args, train_dataset=data, processing_class=make_processor(), teacher=name)
    with pytest.raises(SystemExit, match=words):
        convert(["--from", name, "--output_dir", str(tmp_path / "converted")])
    with pytest.raises(ValueError, match="is no model that a CLIPModel can hold: init_logit_bias"):
        load_open_clip(name, make_model())
    with pytest.raises(TypeError, match="OpenClipModel, but open_clip's CLIP is a CLIPModel here"):
        to_open_clip(load_model(name))
