"""Scenes of several emoji with exact masks, for segmentation: drawings pasted by their alpha channel on grounds.

    python examples/emoji/make/build.py --steps fetch,data,scenes

Everything is drawn by the seed and the number of the scene. Test scenes have the test style alone, validation scenes
the validation style, training scenes those of the fine-tuning set. Nothing was chosen on the test style or by attacks.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import art
import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

SEED = 0
NUM_SCENES = {"train": 240, "validation": 120, "test": 240}
# Height and width, in turn: one, two and four windows of 40 pixels that move by 20.
SIZES = ((40, 40), (40, 60), (60, 40), (60, 60))
EDGES = (28, 40)  # of a drawing, least and most
LEAST, MOST = 1600, 1200  # pixels of a scene for each drawing, where there are few and many
VISIBLE = 0.6  # of each drawing's pixels that others leave, at least
OPAQUE = 128  # alpha from which a pixel is of the drawing

BACKGROUND = "background"
# As scene_classes.py chooses them.
CLASSES = (
    "hamburger",
    "french fries",
    "doughnut",
    "cityscape",
    "ferris wheel",
    "barber pole",
    "first quarter moon",
    "party popper",
    "tanabata tree",
    "ribbon",
    "slot machine",
    "heart suit",
    "diamond suit",
    "joker",
    "bikini",
    "woman’s boot",
    "top hat",
    "guitar",
    "camera with flash",
    "envelope",
)


@dataclass(frozen=True)
class Drawing:
    """A drawing of a class (its number, from 1) in a style: premultiplied RGBA `[48,48,4]`."""

    label: int
    style: str
    frame: np.ndarray


@dataclass(frozen=True)
class Scene:
    """An image `[H,W,3]`, the class of each pixel `[H,W]` (0 is background), and what was pasted, the lowest first."""

    image: np.ndarray
    mask: np.ndarray
    drawings: list[Drawing]


# ------------------------------------------------------------------------------------------------------------ grounds


def plain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(rng.random(3), (height, width, 3))


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One colour that becomes another from edge to edge."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    place = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    return two_colours(rng, place / np.sqrt(2) + 0.5)


def stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two colours in stripes."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width]
    return two_colours(rng, (np.cos(angle) * x + np.sin(angle) * y) % rng.uniform(6, 14) < 4)


def checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two colours in squares."""
    edge = rng.integers(4, 11)
    y, x = np.mgrid[:height, :width]
    return two_colours(rng, (x // edge + y // edge) % 2)


def clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two colours that flow into each other."""
    cells = Image.fromarray((255 * rng.random((5, 5))).astype(np.uint8))
    return two_colours(rng, np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC)) / 255)


def two_colours(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Two colours, not far from each other, mixed by a share for each pixel."""
    first = rng.random(3)
    second = np.clip(first + rng.uniform(-0.3, 0.3, 3), 0, 1)
    return first + share[..., None] * (second - first)


GROUNDS = {"plain": plain, "gradient": gradient, "stripes": stripes, "checks": checks, "clouds": clouds}


# ------------------------------------------------------------------------------------------------------------- scenes


def draw_scene(rng: np.random.Generator, drawings: list[Drawing], height: int, width: int, ground: str) -> Scene:
    """A scene of different classes, of which later drawings lie on earlier ones."""
    image = 255 * GROUNDS[ground](rng, height, width)
    owner = np.zeros((height, width), int)  # which drawing a pixel is of, from 1
    areas = [0]
    pasted = []

    area = height * width
    count = rng.integers(max(1, area // LEAST), area // MOST + 1)
    for _ in range(50):
        if len(pasted) == count:
            break
        drawing = drawings[rng.integers(len(drawings))]
        edge = rng.integers(EDGES[0], EDGES[1] + 1)
        top, left = rng.integers(0, height - edge + 1), rng.integers(0, width - edge + 1)
        part = np.s_[top : top + edge, left : left + edge]
        sprite = resized(drawing.frame, edge)
        opaque = sprite[..., 3] >= OPAQUE

        # Each class once, and not over most of another drawing
        covered = owner.copy()
        covered[part][opaque] = len(pasted) + 1
        left_over = np.bincount(covered.ravel(), minlength=len(pasted) + 2)
        is_hidden = any(left_over[i] < VISIBLE * areas[i] for i in range(1, len(pasted) + 1))
        if is_hidden or any(drawing.label == other.label for other in pasted):
            continue

        image[part] = sprite[..., :3] + image[part] * (1 - sprite[..., 3:] / 255)
        owner = covered
        areas.append(int(opaque.sum()))
        pasted.append(drawing)

    labels = np.array([0, *(drawing.label for drawing in pasted)], np.uint8)
    return Scene(np.rint(image).clip(0, 255).astype(np.uint8), labels[owner], pasted)


def resized(frame: np.ndarray, edge: int) -> np.ndarray:
    """A premultiplied drawing at another size, as floats."""
    image = Image.frombytes("RGBa", frame.shape[1::-1], frame.tobytes())
    return np.asarray(image.resize((edge, edge), Image.Resampling.BILINEAR)).astype(float)


def scenes_of(drawings: list[Drawing], split: str) -> list[tuple[Scene, str]]:
    """The scenes of a split, each with the name of its ground; sizes and grounds take turns."""
    stream = sorted(NUM_SCENES).index(split)
    scenes = []
    for number in range(NUM_SCENES[split]):
        height, width = SIZES[number % len(SIZES)]
        ground = list(GROUNDS)[number // len(SIZES) % len(GROUNDS)]
        rng = np.random.default_rng([SEED, stream, number])
        scenes.append((draw_scene(rng, drawings, height, width, ground), ground))
    return scenes


# -------------------------------------------------------------------------------------------------------------- files


def drawings_of(emojis: list[art.Emoji], arrays: dict[str, np.ndarray], split: str) -> list[Drawing]:
    """The drawings of all classes in the styles of a split."""
    labels = {emoji.label: number for number, emoji in enumerate(emojis)}
    drawings = []
    for style_id, (name, style) in enumerate(art.load_styles().items()):
        is_of_split = style.get("finetune", False) if split == "train" else style["role"] == split
        if not is_of_split:
            continue
        for number, label in enumerate(CLASSES, start=1):
            rows = np.flatnonzero((arrays["emoji"] == labels[label]) & (arrays["style"] == style_id))
            drawings += [Drawing(number, name, arrays["frames"][row]) for row in rows]
    return drawings


def write(emojis: list[art.Emoji], arrays: dict[str, np.ndarray], folder: Path):
    """Writes the scenes of each split as a parquet file."""
    names = [BACKGROUND, *CLASSES]
    features = Features(
        image=ImageFeature(),
        mask=ImageFeature(),
        classes=List(ClassLabel(names=names)),
        styles=List(Value("string")),
        ground=Value("string"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for split in NUM_SCENES:
        records = [
            {
                "image": {"bytes": art.webp(scene.image), "path": None},
                "mask": {"bytes": indexed_png(scene.mask), "path": None},
                "classes": [drawing.label for drawing in scene.drawings],
                "styles": [drawing.style for drawing in scene.drawings],
                "ground": ground,
            }
            for scene, ground in scenes_of(drawings_of(emojis, arrays, split), split)
        ]
        file = folder / f"{split}.parquet"
        Dataset.from_list(records, features=features).to_parquet(file)
        print(f"  {folder.name}/{split}: {len(records)} scenes, {file.stat().st_size / 1e3:.0f} kB", flush=True)


def indexed_png(mask: np.ndarray) -> bytes:
    """A mask as a PNG whose palette shows each class in a colour of its own."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    hues = np.arange(len(CLASSES)) * 256 // len(CLASSES)
    colours = [np.array(Image.new("HSV", (1, 1), (int(hue), 160, 230)).convert("RGB"))[0, 0] for hue in hues]
    image.putpalette(np.concatenate([np.zeros(3, np.uint8), *colours]).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
