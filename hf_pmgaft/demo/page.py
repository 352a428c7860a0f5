"""The page: its tabs, and what a newcomer reads first."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from .attack_tab import Handlers, attack_tab, session_of
from .bench import Bench
from .reports_tab import reports_tab
from .settings import Settings
from .transfer_tab import transfer_tab
from .visitors import Visitors

TITLE = "Adversarial images, and models that stand them"
INTRODUCTION = """
# Adversarial images, and models that stand them

An *adversarial image* is an image whose pixels were changed by so little that nobody sees it, and which a model takes
for something else. Here you make one: take an image, say which classes there are, and press *Attack*. CLIP compares
the image with the text of each class; the attack follows its gradients to a change within the radius, that is, of each
pixel by at most so many 255ths (L∞), or of all together by at most a length (L2).

What you see is said of the image as a file of 8 bits holds it, which you can download. If a model falls, that is sure.
If it stands, then against this attack with these steps: a stronger one may still find something, so that accuracy
under attack is an upper bound of robustness.
"""
# Seconds between two times that files are looked through, and after which they are removed.
CLEANED_EVERY, KEPT_FOR = 600, 3600
MOST_WAITING = 64


def make_page(settings: Settings, visitors: Visitors, folder: Path) -> gr.Blocks:
    """Opens the models, and builds the page.

    Args:
        settings (`Settings`): What its operator decided.
        visitors (`Visitors`): Who computes.
        folder (`Path`): Where files lie.
    """
    handlers = Handlers(Bench(settings), visitors, folder)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEANED_EVERY, KEPT_FOR)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("Attack"):
            result = attack_tab(handlers)
        with gr.Tab("Transfer"):
            transfer_tab(handlers, result)
        with gr.Tab("Reports"):
            reports_tab(handlers)

        def leave(request: gr.Request) -> None:
            visitors.stop(session_of(request))

        page.unload(leave)
    page.queue(default_concurrency_limit=1, max_size=MOST_WAITING, api_open=False)
    return page
