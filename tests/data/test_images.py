"""Images as people have them: each kind comes out upright, in RGB of 8 bits and on white, from every source."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from support.paths import EMOJI
from support.tiny import CLASS_NAMES, encoded, make_images
from transformers import AutoModel, AutoProcessor

from hf_pmgaft.data import ImageClassificationDataset, ZeroShotDataset, load_images, read_image, training_examples
from hf_pmgaft.evaluation import evaluate_robustness

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
DARK, LIGHT = (64, 64, 64), (192, 192, 192)


def halves(left, right, mode: str = "RGB") -> Image.Image:
    """16 x 8 pixels of one colour on the left and of another on the right."""
    picture = Image.new(mode, (16, 8), left)
    picture.paste(right, (8, 0, 16, 8))
    return picture


def grey_16_bits(kind: str = "<u2") -> Image.Image:
    return Image.fromarray(np.repeat(np.array([[64 * 257, 192 * 257]]), 8, 1).repeat(8, 0).astype(kind))


def png_16_bits(left, right) -> bytes:
    """A PNG of 16 bits per channel, RGB or RGBA, which Pillow reads but does not write."""
    rows = np.repeat(np.array([[left, right]]), 8, 1).repeat(8, 0).astype(">u2")
    content = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 16, 8, 16, 2 if len(left) == 3 else 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette(transparent: bool) -> bytes:
    picture = Image.new("P", (16, 8), 1)
    picture.putpalette([0, 0, 0, *RED, *BLUE])
    picture.paste(0 if transparent else 2, (8, 0, 16, 8))
    return encoded(picture, **({"transparency": 0} if transparent else {}))


def turned(orientation: int) -> bytes:
    """As a camera stores a picture that was taken upside down or upright."""
    exif = Image.Exif()
    exif[274] = orientation
    back = {3: Image.ROTATE_180, 6: Image.ROTATE_90, 8: Image.ROTATE_270}[orientation]
    return encoded(halves(RED, BLUE).transpose(back), format="JPEG", quality=100, subsampling=0, exif=exif)


FULL, NONE = 65535, 0
KINDS = {  # what is in the file, and the colours that it shows
    "grey": (encoded(halves(64, 192, "L")), DARK, LIGHT),
    "one bit": (encoded(halves(0, 1, "1")), (0, 0, 0), WHITE),
    "palette": (palette(False), RED, BLUE),
    "palette with transparency": (palette(True), RED, WHITE),
    "RGBA, transparent": (encoded(halves((*RED, 255), (0, 0, 0, 0), "RGBA")), RED, WHITE),
    "RGBA, half transparent": (encoded(halves((*RED, 255), (0, 0, 0, 127), "RGBA")), RED, (128, 128, 128)),
    "grey with alpha": (encoded(halves((64, 255), (64, 0), "LA")), DARK, WHITE),
    "CMYK as JPEG": (encoded(halves(RED, BLUE).convert("CMYK"), format="JPEG", quality=100), RED, BLUE),
    "CMYK as TIFF": (encoded(halves(RED, BLUE).convert("CMYK"), format="TIFF"), RED, BLUE),
    "upside down": (turned(3), RED, BLUE),
    "turned left": (turned(6), RED, BLUE),
    "turned right": (turned(8), RED, BLUE),
    "16 bits, grey": (encoded(grey_16_bits()), DARK, LIGHT),
    "16 bits, TIFF": (encoded(grey_16_bits(), format="TIFF"), DARK, LIGHT),
    "16 bits, big-endian TIFF": (encoded(grey_16_bits(">u2"), format="TIFF"), DARK, LIGHT),
    "16 bits, RGB": (png_16_bits((FULL, NONE, NONE), (NONE, NONE, FULL)), RED, BLUE),
    "16 bits, RGBA": (png_16_bits((FULL, NONE, NONE, FULL), (NONE, NONE, NONE, NONE)), RED, WHITE),
    "WebP": (encoded(halves((*RED, 255), (0, 0, 0, 0), "RGBA"), format="WEBP", lossless=True), RED, WHITE),
}


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


def write(source: str, folder: Path, images: list[bytes], suffix: str = "png") -> str:
    """Writes images, of the classes in turn, as an ImageFolder, a CSV file with paths beside it, or a shard."""
    names = [CLASS_NAMES[i % 4] for i in range(len(images))]
    files = [f"{name}/{i:02}.{suffix}" for i, name in enumerate(names)]
    if source == "shard":
        with tarfile.open(folder / "images.tar", "w") as tar:
            for i, content in enumerate(images):
                for ending, data in ((suffix, content), ("cls", str(i % 4).encode())):
                    info = tarfile.TarInfo(f"{i:02}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return str(folder / "images.tar")
    for file, content in zip(files, images, strict=True):
        (folder / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train" / file).write_bytes(content)
    if source == "folder":
        return str(folder)
    lines = [f"train/{file},{name}" for file, name in zip(files, names, strict=True)]
    (folder / "images.csv").write_text("\n".join(["picture,label" if source == "other csv" else "path,label", *lines]))
    return str(folder / "images.csv")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", ["folder", "csv", "other csv", "shard"])
def test_every_source_gives_the_images_on_white(processor, tmp_path, monkeypatch, source, streaming):
    images = [KINDS["RGBA, transparent"][0], KINDS["16 bits, grey"][0], KINDS["grey"][0], KINDS["palette"][0]]
    name = write(source, tmp_path, images)
    monkeypatch.chdir("/")  # paths do not start here
    loaded = load_images(name, streaming=streaming)
    column = "picture" if source == "other csv" else None
    names = {"folder": None, "shard": CLASS_NAMES}.get(source, sorted(CLASS_NAMES))  # a stream does not tell its texts
    data = training_examples(loaded, processor, names, column)
    found = {data.class_names[row["labels"]]: row["pixel_values"] for row in data}
    for name, content in zip(CLASS_NAMES, images, strict=True):
        wanted = processor(images=read_image(content), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(found[name], wanted, msg=name)


def test_class_names_of_a_csv_file_are_its_texts(processor, tmp_path):
    data = training_examples(load_images(write("csv", tmp_path, [KINDS["grey"][0]] * 4)), processor)
    assert data.class_names == sorted(CLASS_NAMES)


@pytest.mark.parametrize("source", ["folder", "csv", "shard"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_image_is_named_by_its_row(processor, tmp_path, source, form):
    whole = encoded(make_images(1)[0]["image"].resize((64, 64)), format=form)
    name = write(source, tmp_path, [whole, whole, whole[: len(whole) // 2], whole], form.lower())
    data = training_examples(load_images(name), processor, CLASS_NAMES)
    row = 0 if source == "folder" else 2  # the classes of a folder have the order of their names
    with pytest.raises(ValueError, match=f"image in row {row}, column .*cannot be read .*truncated"):
        data[row]
    with pytest.raises(ValueError, match=f"1 of the rows cannot be used:\n.*row {row}"):
        data.check()


def test_a_file_that_a_csv_names_and_is_not_there_is_named_by_its_row(processor, tmp_path):
    (tmp_path / "images.csv").write_text("image,label\nnone.png,cat\nother.png,dog\n")
    data = training_examples(load_images(str(tmp_path / "images.csv")), processor)
    with pytest.raises(ValueError, match="row 1.*other.png"):
        data[1]


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
