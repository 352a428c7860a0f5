"""Whatever stands in an image column or is passed as an image: the picture that was meant, or one clear refusal."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from support.borders import Refused, check, outcomes
from support.pictures import BLUE, RED, halves
from support.tiny import CLASS_NAMES, encoded

from hf_pmgaft.data import ImageClassificationDataset, ZeroShotDataset, read_image

PICTURE = halves(RED, BLUE)
LEVELS = np.asarray(PICTURE)  # [8,16,3]
FILE = encoded(PICTURE)
GREY = np.repeat(np.array([[0, 100, 200, 255]], np.uint8), 4, 0)
DARK = np.array([[0, 1], [2, 2]])


def pixels(value) -> list:
    return np.asarray(read_image(value)).tolist()


def grey(levels) -> list:
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, -1).tolist()


FLOATS = {
    f"{library}, {name}, {layout}, up to {top}": (convert(LEVELS / 255 * top, axes), LEVELS.tolist())
    for layout, axes in {"[H,W,3]": (0, 1, 2), "[3,H,W]": (2, 0, 1)}.items()
    for library, names, convert in (
        ("NumPy", ("float16", "float32", "float64"), None),
        ("torch", ("float16", "bfloat16", "float32", "float64"), None),
    )
    for name in names
    for top in (1, 255)
    for convert in [
        (lambda x, axes, name=name: x.transpose(axes).astype(name))
        if library == "NumPy"
        else (lambda x, axes, name=name: torch.tensor(x.transpose(axes)).to(getattr(torch, name)))
    ]
}


@outcomes(FLOATS)
def test_floats_of_both_scales_and_layouts_are_the_picture(given, outcome):
    check(lambda: pixels(given), outcome)


NUMBERS = {
    "an array of 8 bits": (LEVELS, LEVELS.tolist()),
    "channels first": (LEVELS.transpose(2, 0, 1), LEVELS.tolist()),
    "a tensor of 8 bits": (torch.tensor(LEVELS).permute(2, 0, 1), LEVELS.tolist()),
    "a tensor with a gradient": ((torch.tensor(LEVELS) / 255).requires_grad_(), LEVELS.tolist()),
    "nested lists": (LEVELS.tolist(), LEVELS.tolist()),
    "a batch of one": (torch.tensor(LEVELS)[None] / 255, LEVELS.tolist()),
    "grey": (GREY, grey(GREY)),
    "grey with one channel": (GREY[..., None], grey(GREY)),
    "grey with one channel first": (torch.tensor(GREY)[None] / 255, grey(GREY)),
    "16 bits, channels first": (LEVELS.transpose(2, 0, 1).astype(np.uint16) * 257, LEVELS.tolist()),
    "a mask of booleans": (np.array([[True, False]]), grey([[255, 0]])),
    "floats resized beyond 1": (np.array([[-0.01, 0.5, 1.03]]), grey([[0, 128, 255]])),
    "floats resized beyond 255": (np.array([[-3.0, 128.4, 259.5]]), grey([[0, 128, 255]])),
    "whole floats of an image that is all but black": (DARK.astype(np.float32), grey(DARK)),
    "an image that is black": (np.zeros((2, 2), np.float32), grey(np.zeros((2, 2)))),
    "one pixel wide": (LEVELS[:, :1] / 255, LEVELS[:, :1].tolist()),
    "three pixels high": (LEVELS[:3], LEVELS[:3].tolist()),
    "normalised floats": ((LEVELS / 255 - 0.48) / 0.27, Refused("before they were normalised")),
    "normalised floats that are all bright": (np.full((4, 4, 3), 1.9) - GREY[..., None] / 1e4, Refused("normalised")),
    "floats from -1 to 1": (LEVELS / 127.5 - 1, Refused("neither in [0,1] nor from 0 to 255")),
    "NaN": (np.full((4, 4), np.nan), Refused("NaN or infinite")),
    "infinity": (np.full((4, 4), np.inf), Refused("NaN or infinite")),
    "integers beyond 8 bits": (LEVELS.astype(np.int32) * 257, Refused("no known scale: pass uint8")),
    "negative integers": (LEVELS.astype(np.int16) - 128, Refused("no known scale: pass uint8")),
    "complex numbers": (LEVELS * 1j, Refused("complex128, which are no pixels")),
    "two channels": (np.zeros((8, 16, 2), np.uint8), Refused("[8, 16, 2] is neither [H,W]")),
    "a batch of two": (np.stack([LEVELS, LEVELS]), Refused("[2, 8, 16, 3] is not that of one image")),
    "a row of numbers": (list(range(12)), Refused("[12] is not that of one image")),
    "a NumPy number": (np.float32(3), Refused("[] is not that of one image")),
    "no pixels": (np.zeros((0, 4, 3), np.uint8), Refused("leaves no pixel")),
    "lists of several lengths": ([[1, 2], [3]], Refused("inhomogeneous")),
}


@outcomes(NUMBERS)
def test_arrays_tensors_and_lists_of_numbers(given, outcome):
    check(lambda: pixels(given), outcome)


VALUES = {
    "a path": (lambda folder: folder / "a.png", LEVELS.tolist()),
    "the name of a file": (lambda folder: str(folder / "a.png"), LEVELS.tolist()),
    "bytes": (lambda folder: FILE, LEVELS.tolist()),
    "a bytearray": (lambda folder: bytearray(FILE), LEVELS.tolist()),
    "a memoryview": (lambda folder: memoryview(FILE), LEVELS.tolist()),
    "a NumPy text of bytes": (lambda folder: np.bytes_(FILE), LEVELS.tolist()),
    "BytesIO": (lambda folder: io.BytesIO(FILE), LEVELS.tolist()),
    "an open file": (lambda folder: (folder / "a.png").open("rb"), LEVELS.tolist()),
    "an opened image": (lambda folder: Image.open(folder / "a.png"), LEVELS.tolist()),
    "what datasets stores": (lambda folder: {"bytes": FILE, "path": "elsewhere.png"}, LEVELS.tolist()),
    "a path as datasets stores it": (lambda folder: {"bytes": None, "path": str(folder / "a.png")}, LEVELS.tolist()),
    "bytes alone": (lambda folder: {"bytes": FILE}, LEVELS.tolist()),
    "a list of one image": (lambda folder: [PICTURE], LEVELS.tolist()),
    "a list of two images": (lambda folder: [PICTURE, PICTURE], Refused("a list of 2 entries in place of one image")),
    "a list of two files": (lambda folder: [FILE, FILE], Refused("a list of 2 entries in place of one image")),
    "an empty list": (lambda folder: [], Refused("a list of 0 entries")),
    "nothing": (lambda folder: None, Refused("there is none")),
    "what tables have for nothing": (lambda folder: float("nan"), Refused("there is none")),
    "an empty text": (lambda folder: "", Refused("there is none")),
    "a dict of neither": (lambda folder: {"bytes": None, "path": None}, Refused("there is none")),
    "a dict of something else": (lambda folder: {"url": "x"}, Refused("a dict of ['url'] without 'bytes' or 'path'")),
    "base64": (lambda folder: "iVBORw0KGgo" * 40, Refused("it is the base64 text 'iVBOR")),
    "base64 with its type": (
        lambda folder: "data:image/png;base64," + base64.b64encode(FILE).decode(),
        LEVELS.tolist(),
    ),
    "a file that is not there": (lambda folder: str(folder / "b.png"), Refused("there is no file")),
    "a folder": (lambda folder: folder, Refused("directory")),
    "a text that is too long for a file": (lambda folder: "a cat. " * 1000, Refused("File name too long")),
    "no image": (lambda folder: b"no image", Refused("its 8 bytes are no image of a kind that Pillow knows")),
    "no bytes": (lambda folder: b"", Refused("its 0 bytes are no image")),
    "an image without pixels": (lambda folder: Image.new("RGB", (0, 5)), Refused("it is 0 x 5 and has no pixels")),
    "a number": (lambda folder: 7, Refused("of the type int, which holds no image")),
    "something else": (lambda folder: object(), Refused("of the type object, which holds no image")),
}


@outcomes(VALUES)
def test_values_of_an_image_column(given, outcome, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    check(lambda: pixels(given(tmp_path)), outcome)


@pytest.mark.parametrize("value", [io.BytesIO(FILE), torch.tensor(LEVELS).permute(2, 0, 1) / 255, LEVELS / 255.0])
def test_sets_of_such_values_train_and_evaluate_as_the_picture_does(processor, value):
    def read(image):
        rows = [{"image": image, "label": 0}]
        examples = ImageClassificationDataset(rows, processor, CLASS_NAMES)
        data = ZeroShotDataset(rows, processor, CLASS_NAMES)
        data[0]  # an open file is read once more
        return examples[0]["pixel_values"], data[0]["images"]

    for found, wanted in zip(read(value), read(PICTURE), strict=True):
        assert torch.equal(found, wanted)
