"""docs/recipes.md: each recipe, as it ran over the Hub on loopback."""

from __future__ import annotations

from hf_pmgaft.evaluation.tables import render
from support.paths import ROOT

PAGE = ROOT / "docs" / "recipes.md"
HEADER = ["recipe", "first text", "images a step", "clipping", "warm-up", "sets", "card: clean / robust"]
TEXT = """# The recipes, as they run

Every recipe that `pmgaft recipes` lists, run for two steps over a small Hub of the tests that serves models and
sets by their Hub names: a tiny CLIP with random weights, and stand-ins of the sets with their own columns, classes and
numbers of rows, two images each. The table is what was seen in the run: the first text that images were compared with
in a step (of captions, one of the stand-in's; after learned context, the name alone), images in a step over all
processes, the norm that gradients were clipped to, warm-up in steps or as a share of the run, sets evaluated before
and after, and the means in % that the model card shows. **Figures of random weights mean nothing**; they are here to
show that they get there. Published ones stand in the recipes and in the [paper index](paper_index.md).

`make recipes` runs all of them and writes this page, in about 15 minutes on two CPU cores.

"""


def write_page(rows: dict[str, list[str]]) -> None:
    """Writes the page with the rows of recipes."""
    table = render([HEADER, *(rows[name] for name in sorted(rows))], "markdown")
    PAGE.write_text(TEXT + table + "\n", encoding="utf-8")


def stored_rows() -> dict[str, list[str]]:
    """The rows of the page, by recipe; none before it was written."""
    if not PAGE.exists():
        return {}
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = [line[2:-2].split(" | ") for line in lines]
    return {row[0].strip("`"): row for row in rows}
