"""A page over two tiny models and a small set, served in this process, and what visitors do there."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.tiny import CLASS_NAMES, fit_model, make_images, make_model

httpx = pytest.importorskip("httpx")  # which Gradio brings
NAMES = "\n".join(CLASS_NAMES)
TEMPLATE = "a photo of the {}"
PGD = {"attack": "pgd", "norm": "linf", "radius": 8, "num_steps": 5, "loss": "margin"}


@contextmanager
def tiny_page(folder: Path, **limits: Any) -> Iterator[Any]:
    """Serves a page over the models `fitted` and `other` and the set `shapes`; skips the test without Gradio."""
    pytest.importorskip("gradio")
    from hf_pmgaft.demo.serve import serving
    from hf_pmgaft.demo.settings import Settings

    model, processor = fit_model()
    for name, saved in {"fitted": model, "other": make_model(seed=1)}.items():
        saved.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    make_images(16).save_to_disk(folder / "shapes")
    settings = Settings(
        models=[str(folder / "fitted"), str(folder / "other")],
        eval_sets=[str(folder / "shapes")],
        prompt_template=TEMPLATE,
        **limits,
    )
    with serving(settings) as server:
        yield server


class Visitor:
    """Somebody with the page open, who does by its endpoints what its buttons do."""

    def __init__(self, address: str):
        from gradio_client import Client

        self.client = Client(address, verbose=False)

    def draw(self, row: int) -> str:
        """The file of a row, which then lies on the page."""
        return self.client.predict("shapes", str(row), 0, api_name="/draw")[0]["value"]

    def classify(self, file: Any, names: str = NAMES, templates: str = TEMPLATE) -> list[dict[str, float]]:
        """What the models say of a file."""
        from gradio_client import handle_file

        place = None if file is None else handle_file(str(file))
        shown = self.client.predict(place, names, templates, api_name="/classify")
        return [probabilities(each) for each in shown[::2]]

    def start(self, file: Any, label: str | None = None, target: str | None = None, seed: Any = 0, **changed: Any):
        """The job of an attack on a file."""
        from gradio_client import handle_file

        options = {**PGD, "names": NAMES, "templates": TEMPLATE, **changed}
        return self.client.submit(
            None if file is None else handle_file(str(file)),
            options["names"],
            options["templates"],
            options["attack"],
            options["norm"],
            options["radius"],
            options["num_steps"],
            options["loss"],
            label,
            target,
            seed,
            api_name="/attack",
        )

    def attack(self, file: Any, **options: Any) -> "Shown":
        """What an attack on a file came to."""
        return Shown(self.start(file, **options).result(timeout=120))


class Shown:
    """What the page shows of an attack: its status and command, and lists with an entry per model."""

    def __init__(self, outputs: Sequence[Any]):
        self.status, self.curve, self.command, *fields = outputs
        columns = [fields[i : i + 5] for i in range(0, len(fields), 5)]
        self.before = [probabilities(column[0]) for column in columns]
        self.after = [probabilities(column[1]) for column in columns]
        self.verdicts = [column[2] for column in columns]
        self.pictures = [column[3]["value"] for column in columns]
        self.files = [Path(column[4]["value"]).read_bytes() for column in columns]


def probabilities(label: dict[str, Any]) -> dict[str, float]:
    """The classes of a label on the page with what stands behind them."""
    return {each["label"]: each["confidence"] for each in label["value"]["confidences"]}


def ask(address: str, api_name: str, data: list[Any]) -> dict[str, Any]:
    """What the queue answers to data as they are, which a well-behaved client would not send."""
    config = httpx.get(f"{address}config").json()
    (number,) = [each["id"] for each in config["dependencies"] if each["api_name"] == api_name]
    session = secrets.token_hex(6)
    body = {"data": data, "fn_index": number, "session_hash": session}
    joined = httpx.post(f"{address}gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return {"status": joined.status_code, "text": joined.text}
    with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash={session}", timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") == "process_completed":
                return {"status": 200, **message}
    raise AssertionError("the queue gave no answer")
