"""Reports on what vision-language models write, as `pmgaft attack-vlm` makes them."""

from __future__ import annotations

from typing import Any

import torch


def answer_report(*towers: str, shift: float = 0.0) -> dict[str, Any]:
    """A report of two tasks at 4/255 through some towers; `shift` is added to one image's score."""

    def cell(figure: str, scores: list[float]) -> dict[str, Any]:
        mean = sum(scores) / len(scores)
        value = 1 - mean if figure == "success" else mean
        return {figure: value, "interval_95": [value / 3, value / 3 + 0.5], "worst_scores": scores}

    clean, attacked = [1, 1, 1 - shift, 0], [1 - shift, 0, 0, 0]
    tasks = {
        "vqa": {"clean": cell("vqa_accuracy", clean), "4/255": cell("vqa_accuracy", attacked)},
        "target 'cat'": {"clean": cell("success", [1, 1, 1, 1]), "4/255": cell("success", [1, 0, 1, 0])},
    }
    protocol = {
        "protocol": {"name": None, "changed": []},
        "attack": {"attack": "pgd", "num_steps": 2},
        "eps": ["4/255"],
        "verdict": "per image the worst",
        "images": {"rows": [0, 1, 2, 3]},
        "tasks": {
            "vqa": {"figure": "vqa_accuracy", "score": "VQA accuracy"},
            "target 'cat'": {"figure": "success", "score": "success"},
        },
    }
    named = dict.fromkeys(towers, tasks)
    return {"protocol": protocol, "protocol_hash": "abc123", "model": "a model", "towers": named, "means": {}}


def shown_of(towers: list[str], count: int) -> dict[str, tuple[torch.Tensor, list[list[str]]]]:
    """Images of some towers, with texts of clean ones and none of attacked ones."""
    texts = [[f"about clean {number}" for number in range(count)], [""] * count]
    return {tower: (torch.rand(2, count, 3, 8, 8), texts) for tower in towers}
