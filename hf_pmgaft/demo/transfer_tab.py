"""The tab *Transfer*: an image that was made on one model, judged by all."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import form
from .attack_tab import ONE_AT_A_TIME, PROGRESS, SHOWN, TOP, Handlers, Result, session_of
from .errors import shown_errors


class TransferHandlers:
    """What happens in the tab.

    Args:
        handlers ([`Handlers`]): Of the tab *Attack*, whose models and visitors these are.
    """

    def __init__(self, handlers: Handlers):
        self.bench = handlers.bench
        self.visitors = handlers.visitors

    @shown_errors
    def judge(self, source: Any, result: Any, request: gr.Request, progress: Any = PROGRESS) -> list[Any]:
        """What each model says of the image that was made on one of them."""
        source = form.text_of("model", source)
        if not isinstance(result, Result):
            raise ValueError("There is no adversarial image yet. Make one in the tab Attack.")
        if source not in result.attacked:
            raise ValueError(f"You passed the model {source!r:.80}. Choose one of {', '.join(result.attacked)}.")
        attacked = result.attacked[source]
        with self.visitors.run(session_of(request)) as run:
            progress(0, desc="Looking")
            seen = self.bench.judge(attacked, source, result.templates, lambda: run.go_on("the next model"))
        return [
            f"Shown: **{attacked.attack.name}**, made on {source}, judged by all.",
            gr.Image(value=attacked.picture, alt_text=f"Made on {source}. {attacked.verdict}"),
            *(gr.Label(value=each.probabilities) for each in seen.values()),
        ]


def transfer_tab(handlers: Handlers, result: gr.State) -> None:
    """Builds the tab, within the page that is open."""
    names = list(handlers.bench.models)
    gr.Markdown(
        "An attacker who does not know a model makes his image on another one. Choose on which, of the last attack in "
        "the tab *Attack*; every model is then asked about that 8-bit image. The model that it was made on is the "
        "white-box case. That an image does not transfer says nothing of attacks on the model itself."
    )
    with gr.Row():
        source = gr.Dropdown(names, value=names[0], label="Made on", elem_id="source")
        judge = gr.Button("Judge by all", variant="primary", elem_id="judge")
    status = gr.Markdown(elem_id="judged")
    with gr.Row():
        image = gr.Image(**SHOWN, height=240, format="png", label="Adversarial image", alt_text="No image yet")
        labels = [gr.Label(num_top_classes=TOP, label=name, elem_id=f"judged-{i}") for i, name in enumerate(names)]
    judge.click(
        TransferHandlers(handlers).judge,
        [source, result],
        [status, image, *labels],
        **ONE_AT_A_TIME,
        api_name="transfer",
    )
