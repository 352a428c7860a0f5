"""Shows where CLIP checkpoints look: the attention to the class text over images as they are, and under attack.

    python examples/gallery.py
    python examples/gallery.py --models examples/emoji/model outputs/clip-pmgaft-emoji
    python examples/gallery.py --models openai/clip-vit-base-patch32 outputs/clip-pmgaft --eps 1/255 \\
        --eval_set ethz/food101@validation --prompt_template "a photo of {}, a type of food" --num_images 6

A column is an image, drawn by the seed. Of each model the picture shows the image clean and attacked against that
model by PGD, what the model takes it for (green is right, red wrong), and below how well each patch fits the text of
the true class (text-guided attention, TGA-ZSR, arXiv 2410.21802). The number under two maps is their correlation over
the patches: it is low where the attack moves the attention, and near 1 where the model goes on looking at the same.

Without --models it shows the small CLIP of examples/emoji, without --eval_set emojis in a drawing style that no
training saw.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import nn

from hf_pmgaft.attacks import NORMS, frozen, sample_seeds
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.models.backbones import get_backbone
from hf_pmgaft.plots import attention_gallery
from hf_pmgaft.tuning.saved import load_model
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names
from hf_pmgaft.zero_shot.views import text_attention

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from hf_pmgaft import ZeroShotDataset

EMOJI = Path(__file__).parent / "emoji"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--models", nargs="+", default=[str(EMOJI / "model")], help="Hub ids or folders of CLIPModels, one row each."
    )
    images = parser.add_argument_group("images")
    images.add_argument("--eval_set", help="NAME[:config][@split]; the emojis of food if absent.")
    images.add_argument("--prompt_template", help="How class names become prompts.")
    images.add_argument("--num_images", type=int, default=4, help="Columns, drawn from the set by the seed.")
    images.add_argument("--seed", type=int, default=0, help="Of the choice of images and the attack's noise.")
    threat = parser.add_argument_group("threat")
    threat.add_argument("--norm", default="linf", choices=NORMS, help="Norm of the ball.")
    threat.add_argument("--eps", default="4/255", help="Radius in the scale of images in [0,1].")
    threat.add_argument("--num_steps", type=int, default=50, help="Steps of PGD on the margin loss.")
    parser.add_argument("--output_file", default="gallery.png", help="Where the picture goes, as PNG.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.num_images < 1:
        raise ValueError(f"You passed num_images={args.num_images}, which leaves nothing to show. Pass 1 or more.")
    from transformers import AutoProcessor

    from hf_pmgaft.data import ZeroShotDataset, load_images, parse_set
    from hf_pmgaft.evaluation import sample_ids

    pgd = {"attack": "pgd", "eps": args.eps, "norm": args.norm, "num_steps": args.num_steps, "loss": "margin"}
    spec = AttackSpec.of(pgd)
    path, config, split = parse_set(args.eval_set or f"{EMOJI / 'data'}:food@test")
    images = load_images(path, config, split)
    template = args.prompt_template or ("This is a photo of a {}" if args.eval_set else "an emoji of {}")
    looks = {}
    for name, model in zip(row_names(args.models), args.models, strict=True):
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        data = ZeroShotDataset(images, processor, None, template)
        rows = sample_ids(len(data), args.num_images, args.seed)
        looks[name] = look(load_model(model), processor, data, rows, spec, args.seed)
    attention_gallery(
        {name: found["images"] for name, found in looks.items()},
        {name: found["attention"] for name, found in looks.items()},
        {name: found["predictions"] for name, found in looks.items()},
        data.class_names,
        [data[row]["labels"] for row in rows],
        args.output_file,
        title=f"Attention to the text of the true class, clean and under {spec.name}",
    )
    print(f"The picture is in {args.output_file}.")


def row_names(models: Sequence[str]) -> list[str]:
    """What the models are called in the picture: the last two parts of their paths, if these tell them apart."""
    if len(set(models)) < len(models):
        raise ValueError(f"You passed a model twice: {models}. Name each once.")
    short = ["/".join(Path(model).parts[-2:]) for model in models]
    return short if len(set(short)) == len(short) else list(models)


def look(
    model: nn.Module, processor: Any, data: ZeroShotDataset, rows: Sequence[int], spec: AttackSpec, seed: int
) -> dict[str, torch.Tensor]:
    """What one model makes of some rows of a set, clean and under its own attack, in this order.

    Returns:
        `dict[str, torch.Tensor]`: `images` `[2,N,3,H,W]` in [0,1], `attention` to the text of the true class
        `[2,N,h,w]`, `predictions` `[2,N]`.
    """
    device = PartialState().device
    model.to(device)
    backbone = get_backbone(model)
    clean = torch.stack([data[row]["images"] for row in rows]).to(device)
    labels = torch.tensor([data[row]["labels"] for row in rows], device=device)
    with frozen(model):
        embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
        classifier = ZeroShotClassifier.from_model(model, processor, embeds)
        # The same random starts as in an evaluation by the same seed.
        seeds = sample_seeds(seed, 0, torch.tensor(rows, device=device))
        pair = torch.stack([clean, spec.run(classifier, clean, labels, seeds)])
        with torch.no_grad():
            found = [backbone.image_and_patch_embeds(model, classifier.pixel_values(images)) for images in pair]
            attention = torch.stack([text_attention(patches, embeds[labels]) for _, patches in found])
            predictions = torch.stack([classifier.logits(image_embeds).argmax(1) for image_embeds, _ in found])
    return {"images": pair, "attention": attention, "predictions": predictions}


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ImportError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
