"""Shows where CLIP checkpoints look: the attention to the class text over images as they are, and under attack.

    pmgaft gallery
    pmgaft gallery --models openai/clip-vit-base-patch32 outputs/clip-pmgaft --eps 1/255 \\
        --eval_set ethz/food101@validation --prompt_template "a photo of {}, a type of food" --num_images 6
    pmgaft gallery --eval_set scenes --readout sclip

A column is an image, drawn by the seed. Of each model the picture shows the image clean and attacked against that
model by PGD, what the model takes it for (green is right, red wrong), and below how well each patch fits the text of
the true class (text-guided attention, TGA-ZSR, arXiv 2410.21802). The number under two maps is their correlation over
the patches: it is low where the attack moves the attention, and near 1 where the model goes on looking at the same.

Of a set with masks it shows masks, and what each model takes the pixels for, clean and attacked.

Without --models it shows the small CLIP of the package, without --eval_set emojis in a drawing style that no training
saw.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import nn

from ..attacks import NORMS, frozen, sample_seeds
from ..attacks.spec import AttackSpec
from ..embedded import emoji_folder
from ..files import check_output_file
from ..models.backbones import get_backbone
from ..short_names import short_names
from ..tuning.saved import load_one_of_several
from ..zero_shot import ZeroShotClassifier, encode_class_names
from ..zero_shot.readout_spec import ReadoutSpec
from ..zero_shot.views import text_attention
from .errors import flags_named, one_line_errors
from .parser import add_base_options, make_parser
from .segmentation_gallery import draw_pixels, look_at_pixels
from .set_options import FLAGS, HELP, add_column_options, add_mask_options, mask_options_of, options_of

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.evaluation_sets import ZeroShotDataset


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("gallery", __doc__, script)
    parser.add_argument(
        "--models", nargs="+", help="Hub ids, folders or files of CLIPs, one row each; the embedded one if absent."
    )
    add_base_options(parser, "--models")
    parser.add_argument("--output_file", default="gallery.png", help="Where the picture goes, as PNG.")

    images = parser.add_argument_group("images")
    images.add_argument("--eval_set", help="NAME[:config][@split]; the emojis of food if absent.")
    add_column_options(images, several=False)
    add_mask_options(images)
    images.add_argument("--readout", default="sclip", help=HELP["readout"])
    images.add_argument("--prompt_template", help="How class names become prompts.")
    images.add_argument("--num_images", type=int, default=4, help="Columns, drawn from the set by the seed.")
    images.add_argument(
        "--check_data", action="store_true", help="Read every row first and name those that are broken."
    )
    images.add_argument("--seed", type=int, default=0, help="Of the choice of images and the attack's noise.")

    threat = parser.add_argument_group("threat")
    threat.add_argument("--norm", default="linf", choices=NORMS, help="Norm of the ball.")
    threat.add_argument("--eps", default="4/255", help="Radius in the scale of images in [0,1].")
    threat.add_argument("--num_steps", type=int, default=50, help="Steps of PGD, on margin; of pixels on masked_ce.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Draws the gallery that a command line asks for."""
    args = parse(argv, script)
    check_output_file("--output_file", args.output_file)
    if args.num_images < 1:
        raise ValueError(f"You passed num_images={args.num_images}, which leaves nothing to show. Pass 1 or more.")
    readout = ReadoutSpec.parse(args.readout)
    pgd = {"attack": "pgd", "eps": args.eps, "norm": args.norm, "num_steps": args.num_steps}
    attack = AttackSpec.of({**pgd, "loss": "margin"})
    if attack.radius == 0:
        raise ValueError(
            f"You passed --eps {args.eps}, at which nothing is attacked. Pass a radius above 0, as 4/255."
        )
    from ..data.segmentation_sets import SegmentationDataset
    from ..data.sources import load_images, parse_set
    from ..evaluation.plan import sample_ids
    from ..plots import attention_gallery
    from ..suites.known import find_known_set
    from ..suites.sets import load_set

    text = args.eval_set or f"{emoji_folder() / 'data'}:food@test"
    if find_known_set(text) is None:
        load_images(*parse_set(text))  # says what is wrong with it before a model is opened
    options = {**options_of(text, args, [text]), **mask_options_of(text, args, [text])}
    template = args.prompt_template or (None if args.eval_set else "an emoji of {}")
    models = args.models or [str(emoji_folder() / "model")]
    names = short_names("model", models)

    looks = {}
    for name, model in zip(names, models, strict=True):
        loaded, processor = load_one_of_several(model, args.processor, args.base)
        with flags_named(text, FLAGS):
            data = load_set(text, processor, prompt_templates=template, **options)
        if args.check_data and not looks:
            data.check()
        rows = sample_ids(len(data), args.num_images, args.seed)
        if isinstance(data, SegmentationDataset):
            attack = AttackSpec.of({**pgd, "loss": "masked_ce"})
            looks[name] = look_at_pixels(loaded, processor, data, rows, attack, readout, args.seed)
        else:
            looks[name] = look(loaded, processor, data, rows, attack, args.seed)

    if isinstance(data, SegmentationDataset):
        draw_pixels(looks, data, rows, attack, args.output_file)
        return
    attention_gallery(
        {name: seen["images"] for name, seen in looks.items()},
        {name: seen["attention"] for name, seen in looks.items()},
        {name: seen["predictions"] for name, seen in looks.items()},
        data.class_names,
        [data[row]["labels"] for row in rows],
        args.output_file,
        title=f"Attention to the text of the true class, clean and under {attack.name}",
    )
    print(f"The picture is in {args.output_file}.")


def look(
    model: nn.Module, processor: Any, data: ZeroShotDataset, rows: Sequence[int], attack: AttackSpec, seed: int
) -> dict[str, torch.Tensor]:
    """What one model makes of some rows of a set, clean and under its own attack, in this order.

    Returns:
        `dict[str, torch.Tensor]`: `images` `[2,N,3,H,W]` in [0,1], `attention` to the text of the true class
        `[2,N,h,w]`, `predictions` `[2,N]`.
    """
    # Images, labels, and the random starts of an evaluation by the same seed
    device = PartialState().device
    model.to(device)
    clean = torch.stack([data[row]["images"] for row in rows]).to(device)
    labels = torch.tensor([data[row]["labels"] for row in rows], device=device)
    seeds = sample_seeds(seed, 0, torch.tensor(rows, device=device))

    backbone = get_backbone(model)
    with frozen(model):
        embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
        classifier = ZeroShotClassifier.from_model(model, processor, embeds)
        pair = torch.stack([clean, attack.run(classifier, clean, labels, seeds)])

        attention, predictions = [], []
        with torch.no_grad():
            for images in pair:
                image_embeds, patch_embeds = backbone.image_and_patch_embeds(model, classifier.pixel_values(images))
                attention.append(text_attention(patch_embeds, embeds[labels]))
                predictions.append(classifier.logits(image_embeds).argmax(1))
    return {"images": pair, "attention": torch.stack(attention), "predictions": torch.stack(predictions)}


if __name__ == "__main__":
    main()
