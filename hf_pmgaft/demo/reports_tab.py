"""The tab *Reports*: what `pmgaft evaluate` wrote, to look at, and two of them compared."""

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
    def show(self, files: Any, key: Any, ignore: Any, request: gr.Request, progress: Any = PROGRESS) -> list[Any]:
        """The page of the reports, under what images may be right, and the page as a file."""
        reports = read_reports(files, self.folder, self.bench.settings.max_upload)
        keys = keys_of(reports)
        key = form.text_of("verdict", key)
        if key not in keys:
            key = FIRST_KEY
        with self.visitors.run(session_of(request)):
            progress(0, desc="Drawing")
            page = page_of(reports, key, keys_in(ignore), self.sets_in(reports))
        file = self.new_file("report.html" if len(reports) == 1 else "comparison.html")
        file.write_text(page, encoding="utf-8")
        return [
            in_a_frame(page, f"The page of {' and '.join(reports)}"),
            gr.Dropdown(choices=keys, value=key),
            gr.DownloadButton(value=str(file), interactive=True),
        ]

    def sets_in(self, reports: Any) -> dict[str, list[Any]]:
        """The sets of the page that reports name, as each model reads them. Nothing else that they name is opened."""
        if len(reports) == 1:
            return {}
        named = {result.dataset for report in reports.values() for result in report.sets}
        return {name: self.bench.readings(name) for name in self.bench.names_of_sets if name in named}


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
        "Drop the JSON file that `pmgaft evaluate --output_file report.json` wrote, to look at it; or two of one "
        "protocol, to see by how much the second model is ahead of the first, and which images one of them alone has "
        "right. Of the sets of this page you see the images, of others the numbers of their rows. Files are read, and "
        "no place that they name is opened."
    )
    with gr.Row():
        files = gr.File(
            file_count="multiple", file_types=[".json"], height=160, label="Reports, one or two", elem_id="reports"
        )
        with gr.Column():
            key = gr.Dropdown(
                [FIRST_KEY, "clean"],
                value=FIRST_KEY,
                label="Of two: images that one model alone has right",
                info=KEY_INFO,
            )
            ignore = gr.Textbox(
                label="Of two: what may differ in their protocols",
                info="Keys such as versions.torch or device; empty: nothing",
            )
            show = gr.Button("Show", variant="primary", elem_id="show")
    page = gr.HTML(label="Report", elem_id="report")
    download = gr.DownloadButton("This page as a file", interactive=False)

    shown = [page, key, download]
    unread = {"preprocess": False}  # so that the package opens files and says what is wrong with them
    for event, name in ((show.click, "report"), (files.upload, None), (key.input, None)):
        visibility = {"api_name": name} if name else {"api_visibility": "private"}
        event(ReportHandlers(handlers).show, [files, key, ignore], shown, **unread, **ONE_AT_A_TIME, **visibility)
