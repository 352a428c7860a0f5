"""Makes demo.png and report.png, which stand in the README and the pages, with the tests' browser.

pmgaft train                                        # which makes the robust model that the page shows
PYTHONPATH=tests python docs/images/screenshots.py  # in the same folder
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from support.browser import open_browser
from support.demo_visit import Visit
from transformers import AutoProcessor

from hf_pmgaft import evaluate_robustness, load_model
from hf_pmgaft.demo.serve import serving
from hf_pmgaft.demo.settings import Settings
from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.pages import save_report_page
from hf_pmgaft.suites.sets import load_set

MOST_BYTES = 200_000
WIDTH = 960
MARGIN = 16
ATTACKS = ["pgd,eps=4/255,num_steps=10,loss=margin", "pgd,eps=2/255,num_steps=10,loss=margin"]
SETS = ("animals", "food", "travel", "flags")
# What of a report's page is shown: its head, the table, and the first images that fell.
CUT = """() => {
    const main = document.querySelector('main');
    let keep = true;
    for (const each of [...main.children]) {
        if (each.tagName === 'H2') keep = /^Figures|^Images that fell/.test(each.innerText);
        if (!keep || each.querySelector('.chart') || each.tagName === 'FOOTER') each.remove();
    }
    const [fell, stood] = main.querySelectorAll('.examples');
    [...fell.children].slice(4).forEach(each => each.remove());
    stood.previousElementSibling.remove();
    stood.remove();
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, default=120, help="Which image of food is attacked on the page.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="Where the pictures go.")
    args = parser.parse_args()
    with open_browser() as browser:
        save(demo(browser, args.row), args.folder / "demo.png")
        save(report(browser), args.folder / "report.png")


def demo(browser, row: int) -> bytes:
    """The page after an attack on both models, from the button on: the curve, and what each model saw."""
    with serving(Settings()) as server:
        visit = Visit(browser, server.address, viewport={"width": 1280, "height": 900})
        visit.draw(row)
        visit.attack()
        visit.page.mouse.move(0, 0)
        visit.page.wait_for_function("[...document.images].every(image => image.complete)")
        top = visit.page.locator("#attack").bounding_box()["y"]
        end = visit.page.get_by_role("button", name="Adversarial image of").last.bounding_box()
        clip = {"x": 0, "y": top - MARGIN, "width": 1280, "height": end["y"] + end["height"] - top + 2 * MARGIN}
        picture = visit.page.screenshot(full_page=True, clip=clip)
        visit.close()
    return picture


def report(browser) -> bytes:
    """The top of the page of a report on the embedded model, with images that fell."""
    place = emoji_folder()
    processor = AutoProcessor.from_pretrained(place / "model")
    sets = [load_set(f"{place / 'data'}:{name}@test", processor, prompt_templates="an emoji of {}") for name in SETS]
    model = load_model(str(place / "model"))
    measured = evaluate_robustness(model, processor, sets, ATTACKS, max_samples=24, examples=24)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        save_report_page(measured, file, "clip-emoji")
        page = browser.new_page(viewport={"width": 980, "height": 700})
        page.goto(file.as_uri())
        page.evaluate(CUT)
        picture = page.screenshot(full_page=True)
        page.close()
    return picture


def save(picture: bytes, file: Path) -> None:
    """Writes a picture with as many colours as there is room for."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32):
        content = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
        if content.tell() < MOST_BYTES:
            break
    file.write_bytes(content.getvalue())
    print(f"{file}: {content.tell():,} bytes, {colours} colours")


if __name__ == "__main__":
    main()
