"""How the classes of the scenes were chosen: those whose patches the shipped model tells best from each other.

    python examples/emoji/make/scene_classes.py

Reads what the `data` step of build.py left in `.build/`; takes a minute of one core. Looks at clean patches of the
validation style and of five training styles; of the test style only whether it draws an emoji. Each emoji lies in
front of another one on the grounds of the scenes. Of all names that may be classes, those are removed step by step
without which the others are told best, by SCLIP and by ClearCLIP.
"""

import json
from pathlib import Path

import art
import numpy as np
import scenes
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPProcessor

from hf_pmgaft.models.backbones import get_encoder
from hf_pmgaft.models.readouts import patch_embeds

HERE = Path(__file__).parent
GROUPS = ("food", "activities", "travel", "objects")
NUM_CLASSES = 20
NUM_STYLES = 7  # that draw a class, of the eight of all scenes
READOUTS = ("sclip", "clearclip")
# Styles, with how many images of each emoji.
IMAGES = {"noto-v1": 3, "noto": 1, "emojione": 1, "fluent-emoji": 1, "fxemoji": 1, "fluent-emoji-flat": 1}
PROMPT = "an emoji of {}"
WINDOW, PATCH = 40, 8
COVERED = 0.6  # of a patch of a drawing
BATCH = 256


def candidates(emojis: list[art.Emoji], arrays: dict[str, np.ndarray]) -> list[int]:
    """Emoji of the groups that the validation style and most of the others draw."""
    styles = art.load_styles()
    of_scenes = [
        number
        for number, style in enumerate(styles.values())
        if style.get("finetune") or style["role"] in ("validation", "test")
    ]
    validation = [style["role"] for style in styles.values()].index("validation")
    chosen = []
    for index, emoji in enumerate(emojis):
        drawn = set(arrays["style"][arrays["emoji"] == index]) & set(of_scenes)
        if emoji.group in GROUPS and validation in drawn and len(drawn) >= NUM_STYLES:
            chosen.append(index)
    return chosen


def draw(arrays: dict[str, np.ndarray], chosen: list[int], style: str, count: int):
    """Images `[N,3,40,40]` in [0,1], the class in front `[N]`, and how much of each patch it covers `[N,5,5]`."""
    style_id = list(art.load_styles()).index(style)
    rows = np.flatnonzero((arrays["style"] == style_id) & np.isin(arrays["emoji"], chosen))
    row_of = {arrays["emoji"][row]: row for row in rows}
    images, labels, covered = [], [], []
    for label, index in enumerate(chosen):
        for number in range(count if index in row_of else 0):
            rng = np.random.default_rng([0, index, number])
            edge = rng.integers(scenes.EDGES[0], scenes.EDGES[1] + 1)
            ground = list(scenes.GROUNDS.values())[(index + number) % len(scenes.GROUNDS)]

            # Another one behind, maybe partly outside
            canvas = np.zeros((3 * WINDOW, 3 * WINDOW, 3))
            canvas[WINDOW:-WINDOW, WINDOW:-WINDOW] = 255 * ground(rng, WINDOW, WINDOW)
            other = rng.integers(scenes.EDGES[0], scenes.EDGES[1] + 1)
            top, left = rng.integers(-20, WINDOW - other + 21, 2)
            paste(canvas, arrays["frames"][rows[rng.integers(len(rows))]], other, top, left)

            top, left = rng.integers(0, WINDOW - edge + 1, 2)
            alpha = paste(canvas, arrays["frames"][row_of[index]], edge, top, left)
            images.append(canvas[WINDOW:-WINDOW, WINDOW:-WINDOW] / 255)
            labels.append(label)
            covered.append(alpha[WINDOW:-WINDOW, WINDOW:-WINDOW])

    patches = WINDOW // PATCH
    shares = torch.tensor(np.stack(covered)).reshape(-1, patches, PATCH, patches, PATCH).mean((2, 4))
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float(), torch.tensor(labels), shares


def paste(canvas: np.ndarray, frame: np.ndarray, edge: int, top: int, left: int) -> np.ndarray:
    """Pastes a drawing, by its place in the window in the middle of the canvas; gives its alpha on the canvas."""
    sprite = scenes.resized(frame, edge)
    part = np.s_[WINDOW + top : WINDOW + top + edge, WINDOW + left : WINDOW + left + edge]
    canvas[part] = sprite[..., :3] + canvas[part] * (1 - sprite[..., 3:] / 255)
    alpha = np.zeros(canvas.shape[:2])
    alpha[part] = sprite[..., 3] / 255
    return alpha


@torch.no_grad()
def cosines(model, names, images, labels, shares, readout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines `[M,K]` of the patches that a drawing covers with all names, and its label `[M]`."""
    patches = torch.cat([patch_embeds(model, (batch - 0.5) / 0.25, readout) for batch in images.split(BATCH)])
    is_covered = shares > COVERED
    labels = labels[:, None, None].expand_as(is_covered)
    return F.normalize(patches[is_covered], dim=-1) @ names.T, labels[is_covered]


def remove(cosines: torch.Tensor, labels: torch.Tensor, num_classes: int) -> list[int]:
    """Removes classes until so many are left: those without which the mean accuracy of the others is highest."""
    count = cosines.shape[1]
    left = torch.ones(count, dtype=torch.bool)
    while left.sum() > num_classes:
        # What each class gets right, and what others would get right if it were gone
        best, second = cosines.topk(2, dim=1).indices.T
        share = (1 / torch.bincount(labels, minlength=count).clamp(min=1))[labels]
        is_right, would_be = best == labels, (best != labels) & (second == labels)
        accuracy = torch.zeros(count).index_add_(0, labels[is_right], share[is_right])
        gain = torch.zeros(count).index_add_(0, best[would_be], share[would_be])

        surplus = int(left.sum()) - num_classes
        step = max(1, int(0.05 * surplus), 10 if left.sum() > 200 else 1)
        gone = (gain - accuracy).masked_fill(~left, -torch.inf).topk(step).indices
        left[gone] = False
        cosines[:, gone] = -torch.inf
        cosines, labels = cosines[left[labels]], labels[left[labels]]
    return left.nonzero()[:, 0].tolist()


def main():
    """Prints the chosen classes."""
    emojis = [art.Emoji(**each) for each in json.loads((HERE / ".build" / "emoji.json").read_text())]
    with np.load(HERE / ".build" / "art.npz") as file:
        arrays = dict(file)
    folder = HERE.parent / "model"
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)

    chosen = candidates(emojis, arrays)
    print(f"{len(chosen)} emoji may be classes.")
    texts = processor(text=[PROMPT.format(emojis[index].label) for index in chosen], return_tensors="pt", padding=True)
    with torch.no_grad():
        names = F.normalize(get_encoder(model).text_embeds(model, **texts), dim=-1)
    images = [draw(arrays, chosen, style, count) for style, count in IMAGES.items()]
    parts = [cosines(model, names, *each, readout) for readout in READOUTS for each in images]
    left = remove(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), NUM_CLASSES)
    print([emojis[chosen[number]].label for number in left])


if __name__ == "__main__":
    main()
