"""Takes published robust checkpoints into transformers, and models of this package to open_clip.

    pmgaft convert --from chs20/fare2-clip --output_dir fare2
    pmgaft convert --from fare_eps_2.pt --base openai/clip-vit-large-patch14 --output_dir fare2
    pmgaft convert --from outputs/clip-pmgaft-emoji --to open_clip --output_dir clip-pmgaft-open-clip

The first two write a folder that `CLIPModel.from_pretrained` takes; this package's own commands take such checkpoints
as they are. Whole open_clip checkpoints are read and vision towers alone (FARE, TeCoA and what grew out of its code),
never a pickle that could run code. The third writes one that
`open_clip.create_model_and_transforms("local-dir:FOLDER")` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..files import check_output_folder, make_readable, whole_folder, writing_into
from .errors import one_line_errors
from .parser import make_parser


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("convert", __doc__, script)
    parser.add_argument("--from", dest="source", required=True, help="Checkpoint's file, or a folder or Hub id.")
    parser.add_argument("--processor", help="Hub id or folder of the processor, where the checkpoint has none.")
    parser.add_argument("--revision", help="Branch, tag or commit of --from on the Hub; its newest if absent.")
    parser.add_argument("--to", default="transformers", choices=["transformers", "open_clip"], help="What to write.")
    parser.add_argument("--base", help="What --from was trained from, where that holds weights alone or one tower.")
    parser.add_argument("--output_dir", required=True, help="Folder to write.")
    return parser.parse_args(argv)


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
    from ..downstream.open_clip import save_open_clip
    from ..models.open_clip_model import check_trainable
    from ..models.processors import save_processor
    from ..tuning import fold_into_clip
    from ..tuning.saved import load_pair
    from ..zero_shot.text import check_fits

    model, processor = load_pair(args.source, args.processor, args.base, revision=args.revision)
    check_trainable(model)
    check_fits(model, processor)
    with writing_into(args.output_dir), whole_folder(args.output_dir) as folder:
        if args.to == "open_clip":
            save_open_clip(model, processor, folder)
        else:
            fold_into_clip(model).save_pretrained(folder)
            save_processor(processor, folder)
        make_readable(folder)
    print(f"Wrote {args.output_dir}.")


if __name__ == "__main__":
    main()
