"""Makes one perturbation for all images, against one CLIP or several.

    pmgaft universal
    pmgaft universal --model openai/clip-vit-base-patch32 --train_set ethz/food101@train --max_samples 5000 \\
        --eps 10/255 --output_file food.safetensors
    pmgaft universal --loss cosine --eps 12/255 --step_size 0.5/255 --momentum 0 --epochs 1 --batch_size 128

It climbs the mean cross-entropy of a set, each image counted up to --cap, or with --loss cosine it turns embeddings
away from those of the clean images, as X-Transfer does. `pmgaft evaluate --attacks universal,file=FILE` then judges a
model by it, on other images than those it was made on.

Without --model it takes the small CLIP of the package, without --train_set emojis of food from the validation split.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from accelerate import PartialState

from ..attacks.universal_steps import UNIVERSAL_LOSSES
from ..embedded import emoji_folder
from ..files import check_output_file
from ..registry import check_count
from ..tuning.saved import load_one_of_several, load_pair
from .errors import flags_named, one_line_errors
from .parser import add_model_options, make_parser
from .set_options import FLAGS, add_column_options, options_of


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("universal", __doc__, script)
    add_model_options(parser, "the embedded one if absent")
    parser.add_argument("--surrogates", nargs="+", default=[], help="Further models; the signs of all are averaged.")
    parser.add_argument(
        "--output_file", default="universal.safetensors", help="Where the perturbation goes, as safetensors."
    )

    images = parser.add_argument_group("images")
    images.add_argument("--train_set", help="NAME[:config][@split]; the emojis of food if absent.")
    add_column_options(images, several=False)
    images.add_argument("--prompt_template", help="How class names become prompts.")
    images.add_argument("--max_samples", type=int, help="Images, chosen by the seed; all if absent.")
    images.add_argument("--num_workers", type=int, default=0, help="Processes that read images ahead.")

    walk = parser.add_argument_group("walk")
    walk.add_argument("--eps", default="10/255", help="Radius in L-inf, in the scale of images in [0,1].")
    walk.add_argument("--loss", default="ce", choices=UNIVERSAL_LOSSES, help="What is climbed.")
    walk.add_argument("--cap", type=float, default=9.0, help="What the cross-entropy of an image counts at most.")
    walk.add_argument("--step_size", default="0.05eps", help="Length of a step, also in units of the radius.")
    walk.add_argument("--momentum", type=float, default=0.9, help="What is kept of the direction.")
    walk.add_argument("--epochs", type=int, default=10, help="How often each image is seen.")
    walk.add_argument("--batch_size", type=int, default=64, help="Images at once.")
    walk.add_argument("--seed", type=int, default=0, help="Of the start and of the batches.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Makes the perturbation that a command line asks for, and writes its file."""
    args = parse(argv, script)
    check_output_file("--output_file", args.output_file)
    if args.max_samples is not None:
        check_count("--max_samples", args.max_samples)
    from ..evaluation.universal_training import train_universal
    from ..suites.sets import load_set

    # Models
    device = PartialState().device
    name = args.model or str(emoji_folder() / "model")
    model, processor = load_pair(name, args.processor, args.base, revision=args.revision)
    others = [load_one_of_several(each, args.processor, args.base) for each in args.surrogates]

    # Images
    text = args.train_set or f"{emoji_folder() / 'data'}:food@validation"
    options: dict[str, Any] = options_of(text, args, [text])
    template = args.prompt_template or (None if args.train_set else "an emoji of {}")
    with flags_named(text, FLAGS):
        data = load_set(text, processor, prompt_templates=template, part="train_split", **options)

    perturbation = train_universal(
        model.to(device),
        processor,
        data,
        eps=args.eps,
        loss=args.loss,
        cap=args.cap,
        step_size=args.step_size,
        momentum=args.momentum,
        epochs=args.epochs,
        batch_size=args.batch_size,
        max_samples=args.max_samples,
        seed=args.seed,
        surrogates=[(other.to(device), its_processor) for other, its_processor in others],
        num_workers=args.num_workers,
    )
    perturbation.save(args.output_file)
    show(perturbation.protocol, args.output_file)


def show(protocol: dict[str, Any], file: str) -> None:
    """Prints how the mean loss grew, and what judges a model by the perturbation."""
    images, losses = f"{protocol['num_images']:,} images of {protocol['set']['name']}", protocol["mean_loss"]
    grown = f"{losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last"
    print(f"Mean loss ({protocol['loss']}) on {images}: {grown}.")
    print(f"The perturbation is in {file}. pmgaft evaluate --attacks universal,file={file} judges a model by it.")


if __name__ == "__main__":
    main()
