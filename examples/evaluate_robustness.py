"""Measures the clean and robust zero-shot accuracy of any CLIP checkpoint, on any labelled image sets.

    python examples/evaluate_robustness.py --model outputs/clip-pmgaft-emoji --eps 4/255 8/255 --num_steps 50
    python examples/evaluate_robustness.py --model openai/clip-vit-base-patch32 --eval_sets uoft-cs/cifar10@test

Without --eval_sets it uses the eight emoji groups of examples/emoji in a drawing style that no training saw. It prints
a table per radius and, with --output_file, writes everything, per-image verdicts included, as JSON.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from hf_pmgaft.data import ZeroShotDataset, load_images, parse_set
from hf_pmgaft.evaluation import attack_name, evaluate_robustness

EMOJI_DATA = Path(__file__).parent / "emoji" / "data"
GROUPS = ("animals", "smileys", "food", "travel", "activities", "objects", "symbols", "flags")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default=str(EMOJI_DATA.parent / "model"), help="Hub id or folder of a CLIPModel.")
    parser.add_argument("--eval_sets", nargs="+", help="Sets, each NAME[:config][@split]; the emoji groups if absent.")
    parser.add_argument("--split", default="test", help="Split of the emoji groups: test or validation.")
    parser.add_argument("--prompt_template", help="How class names become prompts.")
    parser.add_argument("--norm", default="linf", choices=["linf", "l2"], help="Norm of the ball.")
    parser.add_argument("--eps", nargs="+", default=["4/255"], help="Radii in the scale of images in [0,1].")
    parser.add_argument("--num_steps", type=int, default=50, help="Steps of PGD.")
    parser.add_argument("--loss", default="margin", help="Loss that PGD maximises: ce, margin or dlr.")
    parser.add_argument("--restarts", type=int, default=1, help="Random restarts of PGD.")
    parser.add_argument("--max_samples", type=int, help="Images per set, chosen by the seed; all if absent.")
    parser.add_argument("--batch_size", type=int, default=256, help="Images at once.")
    parser.add_argument("--seed", type=int, default=0, help="Of the noise and the choice of images.")
    parser.add_argument("--output_file", help="JSON file for the whole report.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    processor = AutoProcessor.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    template = args.prompt_template or ("This is a photo of a {}" if args.eval_sets else "an emoji of {}")
    sets = []
    for text in args.eval_sets or [f"{EMOJI_DATA}:{group}@{args.split}" for group in GROUPS]:
        path, config, split = parse_set(text)
        name = config or Path(path).stem
        sets.append(ZeroShotDataset(load_images(path, config, split), processor, None, template, name))
    pgd = {
        "attack": "pgd",
        "norm": args.norm,
        "num_steps": args.num_steps,
        "loss": args.loss,
        "restarts": args.restarts,
    }
    attacks = [{**pgd, "eps": eps} for eps in args.eps]
    report = evaluate_robustness(
        model,
        processor,
        sets,
        attacks,
        batch_size=args.batch_size,
        max_samples=args.max_samples,
        seed=args.seed,
    )
    names = [attack_name(spec) for spec in attacks]
    print(f"{'set':<24}{'classes':>8}{'images':>8}{'clean':>8}" + "".join(f"{name:>30}" for name in names))
    for result in report.sets:
        values = "".join(f"{100 * result.attacks[name]:>30.1f}" for name in names)
        counts = f"{result.name:<24}{result.num_classes:>8}{result.num_samples:>8}"
        print(f"{counts}{100 * result.clean_accuracy:>8.1f}{values}")
    means = "".join(f"{100 * sum(r.attacks[name] for r in report.sets) / len(report.sets):>30.1f}" for name in names)
    print(f"{'mean':<24}{'':>8}{'':>8}{100 * report.mean_clean_accuracy:>8.1f}{means}")
    print(f"Protocol {report.protocol_hash}. Robust accuracies are upper bounds until a stronger attack fails.")
    if args.output_file:
        report.save(args.output_file)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError) as error:  # what was passed cannot work, and the message says why
        sys.exit(f"error: {error}")
