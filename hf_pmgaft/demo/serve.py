"""The page as a server: what it may do, where it listens, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..signals import catching_signals, raise_stop
from .door import Door
from .settings import Settings
from .uploads import PLACE, upload_folder
from .visitors import Visitors

if TYPE_CHECKING:
    import gradio

LOOPBACK = "127.0.0.1"
# What Gradio and the Hub's library report of themselves, and what Gradio keeps of runs.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_RUN_HISTORY": "False"}
FONT = ("system-ui", "sans-serif")
MONOSPACE = ("ui-monospace", "monospace")
# After an error Gradio would write "Error" over each field that shows results. What is wrong is said beside them.
NO_ERROR_OVER_RESULTS = "[data-testid=status-tracker]:has(> .error) { display: none !important; }"
# Gradio's field for an image leaves out what is none by its name, in its own words. Here every file comes in as an
# image, so that the package says what is wrong with it.
ANY_FILE = """() => {
  const isOther = file => !file.type.startsWith("image/");
  const asImages = files => {
    const transfer = new DataTransfer();
    for (const file of files) transfer.items.add(new File([file], file.name, { type: "image/png" }));
    return transfer;
  };
  document.addEventListener("change", ({ target }) => {
    if (target.matches("#image input[type=file]") && [...target.files].some(isOther)) {
      target.files = asImages(target.files).files;
    }
  }, true);
  document.addEventListener("drop", event => {
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!event.target.closest("#image") || !files.some(isOther)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const options = { bubbles: true, cancelable: true, dataTransfer: asImages(files) };
    event.target.dispatchEvent(new DragEvent("drop", options));
  }, true);
}"""


def build_page(settings: Settings | None = None) -> gradio.Blocks:
    """Opens the models and builds the page, to be put into another one or served by other means.

    Uploads then lie where `GRADIO_TEMP_DIR` says, which must be set; [`launch`] makes a folder of its own.

    Args:
        settings (`Settings`, *optional*): Models, sets and limits; the embedded ones if not given.

    Raises:
        ImportError: without Gradio.
        ValueError: without a folder for uploads.

    Example:
        >>> from hf_pmgaft.demo.uploads import upload_folder
        >>> model.save_pretrained("tiny")
        >>> _ = processor.save_pretrained("tiny")
        >>> with upload_folder():
        ...     page = build_page(Settings(models=["tiny"]))
        >>> page.title
        'Adversarial images, and models that stand them'
    """
    return _page(settings or Settings(), Visitors())


def launch(*, host: str | None = None, port: int | None = None, share: bool = False, **settings: Any) -> None:
    """Serves the page until it is stopped by Ctrl-C or SIGTERM.

    Args:
        host (`str`, *optional*): Where it listens; what `GRADIO_SERVER_NAME` says, as on a Space, or else on this
            machine alone.
        port (`int`, *optional*): What `GRADIO_SERVER_PORT` says, or else the first free one from 7860.
        share (`bool`): Whether Gradio opens a public address, through a server of its makers.
        settings: The arguments of [`Settings`].

    Raises:
        ImportError: without Gradio.
        OSError: if the port is taken.

    Example:
        >>> launch(max_classes=1)
        Traceback (most recent call last):
        ValueError: You passed max_classes=1, but an image is told apart by two or more. Pass 2 or more.
    """
    with serving(Settings(**settings), host=host, port=port, share=share) as server:
        print(f"The page is at {server.address} - Ctrl-C closes it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt), catching_signals(raise_stop):
            threading.Event().wait()


@dataclass(frozen=True)
class Server:
    """A page that is open.

    Args:
        address (`str`): Where.
        folder (`Path`): Where its files lie.

    Example:
        >>> Server("http://127.0.0.1:7860/", Path("pmgaft-demo-1-a")).address
        'http://127.0.0.1:7860/'
    """

    address: str
    folder: Path


@contextlib.contextmanager
def serving(
    settings: Settings, *, host: str | None = None, port: int | None = None, share: bool = False
) -> Iterator[Server]:
    """Serves the page beside what runs in the block, and leaves nothing of it behind.

    Args:
        settings (`Settings`): Models, sets and limits.
        host (`str`), port (`int`), share (`bool`): As of [`launch`].
    """
    visitors = Visitors()
    host = host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK
    if share or host not in (LOOPBACK, "localhost", "::1"):
        settings = replace(settings, shows_paths=False)
    with upload_folder() as folder:
        page = _page(settings, visitors)
        try:
            _, address, public = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                max_file_size=settings.max_upload,
                **options_of_launch(settings),
            )
            yield Server(public or address, folder)
        finally:
            visitors.stop_all()
            page.close(verbose=False)


def options_of_launch(settings: Settings) -> dict[str, Any]:
    """What Gradio is told, wherever the page is served: to ask no other server, and to open no more than it needs.

    Example:
        >>> options_of_launch(Settings())["mcp_server"]
        False
    """
    from starlette.middleware import Middleware

    # What is around the files of one upload is little.
    door = Middleware(Door, max_upload=settings.max_upload + 10_000)
    return {
        "prevent_thread_lock": True,
        "inline": False,
        "quiet": True,
        "show_error": False,
        "allowed_paths": None,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "footer_links": [],
        "state_session_capacity": 200,
        "theme": _theme(),
        "css": NO_ERROR_OVER_RESULTS,
        "js": ANY_FILE,
        "app_kwargs": {"middleware": [door]},
    }


def _theme() -> gradio.themes.Default:
    """Gradio's own in the system's fonts, with text that is dark enough, or light enough, to be read."""
    import gradio

    theme = gradio.themes.Default(primary_hue="blue", font=FONT, font_mono=MONOSPACE)
    colours = {
        "block_info_text_color": ("*neutral_600", "*neutral_300"),
        "block_label_text_color": ("*neutral_700", "*neutral_200"),
        "block_title_text_color": ("*neutral_700", "*neutral_200"),
        "body_text_color_subdued": ("*neutral_600", "*neutral_300"),
        "input_placeholder_color": ("*neutral_500", "*neutral_400"),
        "button_primary_background_fill": ("*primary_700", "*primary_700"),
        "button_primary_background_fill_hover": ("*primary_800", "*primary_800"),
        "button_cancel_background_fill": ("#b91c1c", "#b91c1c"),
        "button_cancel_background_fill_hover": ("#991b1b", "#991b1b"),
    }
    return theme.set(
        **{name: light for name, (light, _) in colours.items()},
        **{f"{name}_dark": dark for name, (_, dark) in colours.items()},
    )


def _page(settings: Settings, visitors: Visitors) -> gradio.Blocks:
    check_gradio()
    if PLACE not in os.environ:
        raise ValueError(f"There is no folder for uploads. Set {PLACE} to one of the page's own, or call launch().")
    from .page import make_page

    return make_page(settings, visitors, Path(os.environ[PLACE]))


def check_gradio() -> None:
    """Imports Gradio, which then reports nothing to anybody.

    Raises:
        ImportError: if it is not installed.
    """
    os.environ.update(SILENT)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'The page needs Gradio, which is not installed. Run: pip install "hf_pmgaft[demo]"'
        ) from error
