"""Takes published robust checkpoints into transformers, and models of this package to open_clip.

    pmgaft convert --from fare_eps_2.pt --base openai/clip-vit-large-patch14 --output_dir fare2
    pmgaft convert --from outputs/clip-pmgaft-emoji --to open_clip --output_dir clip-pmgaft-open-clip

The first writes a folder that `--model` of `pmgaft evaluate`, `--model_name_or_path` of `pmgaft train` and
`CLIPModel.from_pretrained` take. It reads whole open_clip checkpoints and vision towers alone (FARE, TeCoA and what
grew out of its code), never a pickle that could run code. The second writes one that
`open_clip.create_model_and_transforms("local-dir:FOLDER")` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..files import check_output_folder
from .errors import one_line_errors
from .parser import make_parser


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("convert", __doc__, script)
    parser.add_argument("--from", dest="source", required=True, help="Checkpoint's file, or a folder or Hub id.")
    parser.add_argument("--to", default="transformers", choices=["transformers", "open_clip"], help="What to write.")
    parser.add_argument("--base", help="The CLIPModel that a file of --from was trained from, Hub id or folder.")
    parser.add_argument("--output_dir", required=True, help="Folder to write.")
    args = parser.parse_args(argv)
    if args.to == "transformers" and args.base is None:
        parser.error("--to transformers needs --base, the model that the checkpoint was trained from")
    return args


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Converts the checkpoint that a command line names."""
    args = parse(argv, script)
    check_output_folder("--output_dir", args.output_dir)
    read = [Path(name).resolve() for name in (args.source, args.base) if name]
    if Path(args.output_dir).resolve() in read:
        raise ValueError(
            f"You passed --output_dir {args.output_dir}, which is read and would be written over. Pass another folder."
        )
    from transformers import AutoProcessor

    from ..downstream.open_clip import load_open_clip, save_open_clip
    from ..files import make_readable
    from ..tuning.saved import load_model

    if args.base is None:
        model = load_model(args.source)
    else:
        model = load_open_clip(args.source, args.base)
    processor = AutoProcessor.from_pretrained(args.base or args.source)

    if args.to == "open_clip":
        save_open_clip(model, processor, args.output_dir)
    else:
        model.save_pretrained(args.output_dir)
        processor.save_pretrained(args.output_dir)
    make_readable(args.output_dir)
    print(f"Wrote {args.output_dir}.")


if __name__ == "__main__":
    main()
