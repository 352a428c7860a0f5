"""Takes published robust checkpoints into transformers, and models of this package to open_clip.

    python examples/convert.py --from fare_eps_2.pt --base openai/clip-vit-large-patch14 --output_dir fare2
    python examples/convert.py --from outputs/clip-pmgaft-emoji --to open_clip --output_dir clip-pmgaft-open-clip

The first writes a folder that `--model` of evaluate_robustness.py, `--model_name_or_path` of run_pmgaft.py and
`CLIPModel.from_pretrained` take. It reads whole open_clip checkpoints and vision towers alone (FARE, TeCoA and what
grew out of its code), never a pickle that could run code. The second writes one that
`open_clip.create_model_and_transforms("local-dir:FOLDER")` takes.
"""

from __future__ import annotations

import argparse
import sys

from transformers import AutoProcessor

from hf_pmgaft import load_model, load_open_clip, save_open_clip


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--from", dest="source", required=True, help="Checkpoint's file, or a folder or Hub id.")
    parser.add_argument("--to", default="transformers", choices=["transformers", "open_clip"], help="What to write.")
    parser.add_argument("--base", help="The CLIPModel that a file of --from was trained from, Hub id or folder.")
    parser.add_argument("--output_dir", required=True, help="Folder to write.")
    args = parser.parse_args(argv)
    if args.to == "transformers" and args.base is None:
        parser.error("--to transformers needs --base, the model that the checkpoint was trained from")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    model = load_model(args.source) if args.base is None else load_open_clip(args.source, args.base)
    processor = AutoProcessor.from_pretrained(args.base or args.source)
    if args.to == "open_clip":
        save_open_clip(model, processor, args.output_dir)
    else:
        model.save_pretrained(args.output_dir)
        processor.save_pretrained(args.output_dir)
    print(f"Wrote {args.output_dir}.")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
