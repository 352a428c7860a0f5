"""Images as people have them: each kind comes out upright, in RGB of 8 bits and on white, from every source."""

import io

import datasets
import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from support.paths import EMOJI
from support.pictures import KINDS, halves, write_images
from support.tiny import CLASS_NAMES, encoded
from transformers import AutoModel, AutoProcessor

from hf_pmgaft.data import (
    ImageClassificationDataset,
    ZeroShotDataset,
    flatten_on_white,
    load_images,
    read_image,
    training_examples,
)
from hf_pmgaft.evaluation import evaluate_robustness


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_does_the_sensible_thing(processor, kind):
    content, left, right = KINDS[kind]
    data = ZeroShotDataset([{"image": content, "label": 0}], processor, CLASS_NAMES, native_size=True)
    shown = 255 * data[0]["images"].permute(1, 2, 0)
    assert shown.shape == (8, 16, 3)
    expected = torch.tensor(np.asarray(halves(left, right)), dtype=torch.float32)
    torch.testing.assert_close(shown, expected, rtol=0, atol=3 if b"JFIF" in content or b"Adobe" in content else 1e-3)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="older processors drop the alpha channel"
)
def test_processor_and_package_have_one_background(processor):
    for kind in ("RGBA, transparent", "RGBA, half transparent", "palette with transparency", "grey with alpha"):
        picture = Image.open(io.BytesIO(KINDS[kind][0]))
        by_processor = processor(images=picture, return_tensors="pt")["pixel_values"]
        by_package = processor(images=read_image(picture), return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(by_processor, by_package, msg=kind)


def test_opened_images_and_arrays_follow_the_same_rules():
    for kind in ("turned left", "16 bits, grey", "RGBA, transparent"):
        picture = Image.open(io.BytesIO(KINDS[kind][0]))
        assert read_image(picture).tobytes() == read_image(KINDS[kind][0]).tobytes()
        if kind != "turned left":  # an array has no place for it
            array = np.asarray(picture)
            array = array if array.dtype == np.uint8 else array.astype(np.uint16)  # Pillow before 11 makes it int32
            assert read_image(array).tobytes() == read_image(picture).tobytes()


def test_sixteen_bits_become_the_nearest_of_eight():
    values = np.array([[0, 128, 129, 257 * 100 + 128, 257 * 100 + 129, 65535]], dtype=np.uint16)
    assert np.asarray(read_image(values))[0, :, 0].tolist() == [0, 0, 1, 100, 101, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_scale_are_refused(processor, mode):
    rows = [{"image": encoded(Image.new(mode, (16, 16)), format="TIFF"), "label": 0}]
    with pytest.raises(ValueError, match=f"row 0.*mode {mode} holds numbers without a known scale"):
        ImageClassificationDataset(rows, processor, CLASS_NAMES)[0]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_picture_becomes_rgb_on_white(mode):
    picture = Image.new("RGB", (4, 4), "white").convert(mode)
    assert (np.asarray(flatten_on_white(picture)) == 255).all() and flatten_on_white(picture).mode == "RGB"
    red = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    assert not (np.asarray(flatten_on_white(red)) == 255).all()


def test_transparent_pixels_are_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert flatten_on_white(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 0
    palette.putpixel((1, 1), 1)
    assert flatten_on_white(palette).getpixel((0, 0)) == (255, 255, 255)
    assert flatten_on_white(palette).getpixel((1, 1)) == (0, 255, 0)


def test_photographs_are_turned_upright_as_datasets_does(eight, processor):
    picture = Image.fromarray(np.repeat(np.arange(20, dtype=np.uint8) * 12, 60).reshape(20, 20, 3))
    exif = Image.Exif()
    exif[274] = 6
    rows = {"image": [{"bytes": encoded(picture, format="JPEG", exif=exif), "path": None}], "label": [0]}
    photographs = datasets.Dataset.from_dict(rows, features=eight.features)
    expected = processor(images=photographs[0]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageClassificationDataset(photographs, processor)[0]["pixel_values"], expected)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", ["folder", "csv", "other csv", "shard"])
def test_every_source_gives_the_images_on_white(processor, tmp_path, monkeypatch, source, streaming):
    images = [KINDS["RGBA, transparent"][0], KINDS["16 bits, grey"][0], KINDS["grey"][0], KINDS["palette"][0]]
    name = write_images(source, tmp_path, images)
    monkeypatch.chdir("/")  # paths do not start here
    loaded = load_images(name, streaming=streaming)
    column = "picture" if source == "other csv" else None
    names = {"folder": None, "shard": CLASS_NAMES}.get(source, sorted(CLASS_NAMES))  # a stream does not tell its texts
    data = training_examples(loaded, processor, names, column)
    found = {data.class_names[row["labels"]]: row["pixel_values"] for row in data}
    for name, content in zip(CLASS_NAMES, images, strict=True):
        wanted = processor(images=read_image(content), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(found[name], wanted, msg=name)


def test_torchvision_and_pillow_processors_give_equal_verdicts():
    """Pixels within 1/255, since both resize by other arithmetic; verdicts equal but for 1 image in 50."""
    pytest.importorskip("torchvision")
    from transformers import CLIPImageProcessor, CLIPImageProcessorPil

    model, processor = AutoModel.from_pretrained(EMOJI / "model"), AutoProcessor.from_pretrained(EMOJI / "model")
    images, reports, pixels = load_images(str(EMOJI / "data"), "food", "test"), [], []
    attack = {"attack": "pgd", "eps": "2/255", "num_steps": 5, "loss": "margin"}
    for kind in (CLIPImageProcessor, CLIPImageProcessorPil):
        processor.image_processor = kind.from_pretrained(EMOJI / "model")
        data = ZeroShotDataset(images, processor, None, "an emoji of {}", "food")
        pixels.append(torch.stack([data[row]["images"] for row in range(50)]))
        reports.append(evaluate_robustness(model, processor, [data], [attack], max_samples=50, progress=False))
    assert (pixels[0] - pixels[1]).abs().max() <= 1 / 255 + 1e-6
    for key in ("clean", "robust"):
        first, second = (report.sets[0].verdicts[key] for report in reports)
        assert 0 < sum(first) and sum(a != b for a, b in zip(first, second, strict=True)) <= 1
