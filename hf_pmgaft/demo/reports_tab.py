"""The tab *Reports*: what `pmgaft evaluate` wrote, to look at, and several of them compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from . import form
from .attack_tab import ONE_AT_A_TIME, PROGRESS, Handlers, session_of
from .errors import shown_errors
from .report_files import in_a_frame, keys_of, page_of, read_reports

FIRST_KEY = "robust"
KEY_INFO = "In the worst case of the headline, without an attack, or after one"


class ReportHandlers:
    """What happens in the tab.

    Args:
        handlers ([`Handlers`]): Of the tab *Attack*, from whose sets images may be shown.
    """

    def __init__(self, handlers: Handlers):
        self.bench = handlers.bench
        self.visitors = handlers.visitors
        self.folder = handlers.folder
        self.new_file = handlers.new_file

    @shown_errors
    def show(
        self,
        files: Any,
        key: Any,
        ignore: Any,
        first: Any,
        second: Any,
        request: gr.Request,
        progress: Any = PROGRESS,
    ) -> list[Any]:
        """The page of the reports, under what images may be right, which two can be compared, and the page as a
        file."""
        reports = read_reports(files, self.folder, self.bench.settings.max_upload)
        names = list(reports)
        pair = pair_of(names, first, second)
        keys = keys_of(reports)
        key = form.text_of("verdict", key)
        if key not in keys:
            key = FIRST_KEY
        with self.visitors.run(session_of(request)):
            progress(0, desc="Drawing")
            page = page_of(reports, key, keys_in(ignore), self.sets_in(reports), pair)
        file = self.new_file("report.html" if len(reports) == 1 else "comparison.html")
        file.write_text(page, encoding="utf-8")
        return [
            in_a_frame(page, f"The page of {' and '.join(reports)}"),
            gr.Dropdown(choices=keys, value=key),
            *(gr.Dropdown(choices=names, value=name, visible=len(names) > 2) for name in pair or (None, None)),
            gr.DownloadButton(value=str(file), interactive=True),
        ]

    def sets_in(self, reports: Any) -> dict[str, list[Any]]:
        """The sets of the page that reports name, as each model reads them. Nothing else that they name is opened."""
        if len(reports) == 1:
            return {}
        named = {result.dataset for report in reports.values() for result in report.sets}
        return {name: self.bench.readings(name) for name in self.bench.names_of_sets if name in named}


def pair_of(names: Sequence[str], first: Any, second: Any) -> tuple[str, str] | None:
    """Which two of the reports are compared: those that were chosen, or else the first ones; `None` if there is one.

    Example:
        >>> pair_of(["a", "b", "c"], "c", "gone"), pair_of(["a", "b", "c"], None, None), pair_of(["a"], "a", "a")
        (('c', 'a'), ('a', 'b'), None)
    """
    if len(names) < 2:
        return None
    first = first if first in names else names[0]
    others = [name for name in names if name != first]
    return first, second if second in others else others[0]


def keys_in(text: Any) -> Sequence[str]:
    """Keys of a protocol that were typed, with spaces or commas between them.

    Example:
        >>> keys_in("versions.torch, device")
        ['versions.torch', 'device']
    """
    return [key for key in re.split(r"[\s,]+", form.text_of("keys", text)) if key]


def reports_tab(handlers: Handlers) -> None:
    """Builds the tab, within the page that is open."""
    gr.Markdown(
        "Drop the JSON file that `pmgaft evaluate --output_file report.json` wrote, to look at it; or several of one "
        "protocol, to see them side by side, by how much one model is ahead of another, and which images one of the "
        "two alone has right. Of the sets of this page you see the images, of others the numbers of their rows. Files "
        "are read, and no place that they name is opened."
    )
    with gr.Row():
        files = gr.File(file_count="multiple", height=160, label="Reports, one or several", elem_id="reports")
        with gr.Column():
            key = gr.Dropdown(
                [FIRST_KEY, "clean"],
                value=FIRST_KEY,
                label="Of several: images that one model alone has right",
                info=KEY_INFO,
            )
            with gr.Row():
                first, second = (
                    gr.Dropdown([], value=None, visible=False, label=label, elem_id=label.lower())
                    for label in ("Compared", "With")
                )
            ignore = gr.Textbox(
                label="Of several: what may differ in their protocols",
                info="Keys such as versions.torch or device; empty: nothing",
            )
            show = gr.Button("Show", variant="primary", elem_id="show")
    page = gr.HTML(label="Report", elem_id="report")
    download = gr.DownloadButton("This page as a file", interactive=False)

    shown = [page, key, first, second, download]
    unread = {"preprocess": False}  # so that the package opens files and says what is wrong with them
    events = (
        (show.click, "report"),
        *((event, None) for event in (files.upload, key.input, first.input, second.input)),
    )
    for event, name in events:
        visibility = {"api_name": name} if name else {"api_visibility": "private"}
        event(
            ReportHandlers(handlers).show,
            [files, key, ignore, first, second],
            shown,
            **unread,
            **ONE_AT_A_TIME,
            **visibility,
        )
