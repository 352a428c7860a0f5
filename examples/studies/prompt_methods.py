"""What learned prompts cost before the first step of training, and what training makes of them, in few shots.

    pmgaft few-shot --grid examples/studies/prompt_methods.yaml --sets validation --seeds 0
    pmgaft few-shot --grid examples/studies/prompt_methods.yaml --sets test --methods none tecoa capt_random capt
    python examples/studies/prompt_methods.py

The last line attaches prompts to the embedded model as a tuning begins, trains nothing, and measures clean accuracy on
the 95 validation drawings of 40 emoji; random starts are drawn five times. It writes them to
results/prompt_methods.json, with what the rows of the grid came to that are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from hf_pmgaft import encode_class_names
from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.files import write_whole
from hf_pmgaft.suites.sets import load_set
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.tuning.saved import load_pair
from hf_pmgaft.zero_shot.classifier import ZeroShotClassifier

RESULTS = Path(__file__).parent / "results" / "prompt_methods.json"
ROWS = Path("outputs/prompt-methods/rows")
TEMPLATE = "an emoji of {}"
WORDS = {"context_words": "an emoji of"}
NO_STOP = {"full_stop": False}
NEUTRAL = {**WORDS, **NO_STOP, "vision_start": "class_token"}
CAPT = {"coupling": "text_to_vision", "depth": 2}
FAP = {"coupling": "vision_to_text", "depth": 2}
# By what tables call it: a tuning and its options.
STARTS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "the template, no prompts": None,
    **{f"context, {number} random": ("text_context", {"num_tokens": number}) for number in (1, 2, 3, 10)},
    **{
        f"context, {number} random, no full stop": ("text_context", {"num_tokens": number, **NO_STOP})
        for number in (1, 2, 3, 10)
    },
    "context, words": ("text_context", WORDS),
    "context, words, no full stop": ("text_context", {**WORDS, **NO_STOP}),
    "capt": ("deep_prompts", {"num_tokens": 2, **CAPT}),
    "capt, words": ("deep_prompts", {**WORDS, **CAPT}),
    "capt, no full stop": ("deep_prompts", {"num_tokens": 2, **NO_STOP, **CAPT}),
    "capt, words, no full stop": ("deep_prompts", {**WORDS, **NO_STOP, **CAPT}),
    "capt, words, no full stop, class token": ("deep_prompts", {**NEUTRAL, **CAPT}),
    "fap": ("deep_prompts", {"num_tokens": 2, **FAP}),
    "fap, words, no full stop": ("deep_prompts", {**WORDS, **NO_STOP, **FAP}),
    "fap, words, no full stop, class token": ("deep_prompts", {**NEUTRAL, **FAP}),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--draws", type=int, default=5, help="How often each start is drawn.")
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS), help="Which starts.")
    parser.add_argument("--rows", type=Path, default=ROWS, help="Folder with the rows of the grid.")
    parser.add_argument("--file", type=Path, default=RESULTS, help="JSON of all of it.")
    return parser.parse_args(argv)


def drawings(processor: Any) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """The validation drawings in [0,1] `[N,3,H,W]`, their labels and the names of the classes."""
    rows = load_set(f"{emoji_folder()}/data:few_shots@validation", processor, prompt_templates=TEMPLATE)
    examples = [rows[number] for number in range(len(rows))]
    images = torch.stack([example["images"] for example in examples])
    return images, torch.tensor([int(example["labels"]) for example in examples]), rows.class_names


def clean_accuracy(start: tuple[str, dict[str, Any]] | None, seed: int) -> float:
    """Clean accuracy in % of the embedded model with prompts as they begin."""
    model, processor = load_pair(emoji_folder() / "model")
    if start is not None:
        torch.manual_seed(seed)
        model = make_tuning(*start).for_tokenizer(processor.tokenizer).prepare(model)
    images, labels, class_names = drawings(processor)
    with torch.no_grad():
        class_embeds = encode_class_names(model, processor, class_names, TEMPLATE)
        predicted = ZeroShotClassifier.from_model(model.eval(), processor, class_embeds)(images).argmax(dim=1)
    return 100 * (predicted == labels).float().mean().item()


def measured_rows(folder: Path) -> list[dict[str, Any]]:
    """Accuracies in % of each row of the grid, whose folder is called SET-METHOD-SHOTS-SEED."""
    rows = []
    for file in sorted(folder.glob("*/plain.json")):
        split, method, *place = file.parent.name.split("-")
        result = RobustnessReport.load(file).sets[0]
        row = {"set": split, "method": method}
        if place:
            row.update(shots=place[0], seed=int(place[1]))
            trained = json.loads((file.parent / "trained.json").read_text(encoding="utf-8"))
            row.update({key: trained[key] for key in ("steps", "parameters", "cpu_seconds")})
        row.update(images=result.num_samples)
        row.update(clean=round(100 * result.clean_accuracy, 1), robust=round(100 * result.robust_accuracy, 1))
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measures the starts that are not in the file yet, and writes them and the rows."""
    args = parse(argv)
    record = json.loads(args.file.read_text(encoding="utf-8")) if args.file.exists() else {}
    starts = record.get("starts", {})
    for name in args.starts:
        if name not in starts:
            draws = [clean_accuracy(STARTS[name], seed) for seed in range(args.draws)]
            starts[name] = {"clean": round(statistics.fmean(draws), 1), "draws": [round(draw, 1) for draw in draws]}
        print(f"{name:40} {starts[name]['clean']:5.1f}   {starts[name]['draws']}", flush=True)

    rows = measured_rows(args.rows) or record.get("rows", [])
    for row in rows:
        print(*row.values())
    write_whole(args.file, json.dumps({"starts": starts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
