"""The README and the pages of docs/: their code, their text and their command lines."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[str, bool]]:
    """A page's code in one language, each block with whether the page marks it as slow."""
    fences = re.findall(rf"(<!-- slow -->\n+)?```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    return [(code, bool(slow)) for slow, code in fences]


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)


def spans(page: Path) -> list[str]:
    """What stands in backticks in a page's text."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_code(page))]


def lines(page: Path) -> list[str]:
    """A page's shell lines, joined where they go on, and the commands within its text."""
    found = []
    for code, _ in blocks(page, "bash"):
        found += re.sub(r"\\\n\s*", " ", code).splitlines()
    starts = ("accelerate launch ", "pmgaft ", "python examples/", "python -m ", "make ", "pip install ")
    inline = [span for span in spans(page) if span.startswith(starts) and not re.fullmatch(r"pmgaft [\w-]+", span)]
    return [line for line in [*found, *inline] if line.strip() and not line.startswith("#")]
