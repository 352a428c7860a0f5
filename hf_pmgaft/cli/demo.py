"""Opens a page in the browser, on which adversarial images are made, judged and compared.

    pmgaft demo
    pmgaft demo --models openai/clip-vit-base-patch32 outputs/clip-pmgaft --eval_sets dtd
    pmgaft demo --host 0.0.0.0 --max_steps 50 --max_megapixels 12

Without arguments it shows the small CLIP of the package on its own images, with the robust one beside it that
`pmgaft train` has made here, if it has. It listens on this machine alone unless --host or --share says otherwise, and
asks no other server for anything. Uploads lie in a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..demo.settings import MB, Settings
from .errors import one_line_errors
from .parser import add_base_options, make_parser


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("demo", __doc__, script)
    parser.add_argument("--models", nargs="+", default=[], help="Hub ids, folders or files of CLIPs, one or more.")
    add_base_options(parser, "--models")
    parser.add_argument(
        "--eval_sets",
        nargs="+",
        default=[],
        help="Sets to draw images from, each known (dtd, ...) or NAME[:config][@split][#revision].",
    )
    parser.add_argument("--prompt_template", help="How class names become prompts; as the sets have it if absent.")

    server = parser.add_argument_group("server")
    server.add_argument("--host", help="Address to listen on; this machine alone if absent.")
    server.add_argument("--port", type=int, help="Port; the first free one from 7860 if absent.")
    server.add_argument(
        "--share", action="store_true", help="Open a public address, through a server of Gradio's makers."
    )

    defaults = Settings()
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max_steps", type=int, default=defaults.max_steps, help="The most steps of an attack.")
    limits.add_argument("--max_classes", type=int, default=defaults.max_classes, help="The most class names.")
    limits.add_argument(
        "--max_megapixels", type=float, default=defaults.max_pixels / MB, help="The largest image, in 10^6 pixels."
    )
    limits.add_argument(
        "--max_megabytes", type=float, default=defaults.max_upload / MB, help="The largest file, in 10^6 bytes."
    )
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Serves the page that a command line asks for, until it is stopped."""
    args = parse(argv, script)
    from ..demo import launch

    launch(
        host=args.host,
        port=args.port,
        share=args.share,
        models=args.models,
        processor=args.processor,
        base=args.base,
        eval_sets=args.eval_sets,
        prompt_template=args.prompt_template,
        max_steps=args.max_steps,
        max_classes=args.max_classes,
        max_pixels=round(args.max_megapixels * MB),
        max_upload=round(args.max_megabytes * MB),
    )


if __name__ == "__main__":
    main()
