"""A browser without a window, and what an accessibility checker says of a page in it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
IMPACTS = ("minor", "moderate", "serious", "critical")


@contextmanager
def open_browser() -> Iterator:
    """Debian's chromium; skips the test where it, or what drives it, is not installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def broken_rules(page, impacts: Sequence[str] = IMPACTS) -> list[str]:
    """The rules of axe that an open page breaks, each with the first place; of some impacts alone, if told so."""
    axe = pytest.importorskip("axe_core_python")
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html']}" for rule in violations if rule["impact"] in impacts]
