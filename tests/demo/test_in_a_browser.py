"""The page as visitors see it, in a real browser, on the embedded default and a second model beside it."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import broken_rules, open_browser
from support.demo_visit import Visit

from hf_pmgaft import RobustnessReport, evaluate_robustness, load_model
from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.evaluation import PictureClassifier
from hf_pmgaft.suites.sets import load_set

pytest.importorskip("gradio")
NAMES = ["tangerine", "mango", "lemon", "pizza", "bubble tea"]
ROW = 3  # of the first set, food: a tangerine
TEMPLATE = "an emoji of {}"
FIRST = "embedded CLIP"
# What Gradio's own components break, and nothing of this page can mend.
GRADIO_BREAKS = {
    "duplicate-id-aria": "two lists of predictions with one class give their lines for it one id",
    "aria-allowed-attr": "an image or a list of predictions without a value is a <div> with a label and no role",
    "nested-interactive": "the button that adds files holds the field that takes them",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which `pmgaft train` seems to have made the robust model: the embedded one, somewhat shaken."""
    folder = tmp_path_factory.mktemp("page")
    robust = folder / "outputs" / "clip-pmgaft-emoji"
    shutil.copytree(emoji_folder() / "model", robust)
    model = load_model(str(robust))
    torch.manual_seed(0)
    with torch.no_grad():
        weight = model.visual_projection.weight
        weight.add_(0.5 * weight.std() * torch.randn_like(weight))
    model.save_pretrained(robust)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    from hf_pmgaft.demo.serve import serving
    from hf_pmgaft.demo.settings import Settings

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with serving(Settings(max_classes=2000)) as server:
            yield server


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser, server):
    """Opens visits, and sees at the end that none of them asked any other server, or met an error of its own."""
    visits = []

    def open_visit(**options) -> Visit:
        visits.append(Visit(browser, server.address, **options))
        return visits[-1]

    yield open_visit
    for each in visits:
        elsewhere = [url for url in each.requests if not url.startswith((server.address, "data:", "blob:"))]
        assert len(each.requests) > 20 and elsewhere == [] and each.problems == []
        each.close()


@pytest.fixture(scope="module")
def kept(request, tmp_path_factory) -> Path:
    """Where screenshots go."""
    place = request.config.getoption("screenshots")
    kept = Path(place) if place else tmp_path_factory.mktemp("screenshots")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@pytest.fixture(scope="module")
def processor():
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(emoji_folder() / "model")


@pytest.fixture(scope="module")
def food(processor):
    return load_set(f"{emoji_folder() / 'data'}:food@test", processor, prompt_templates=TEMPLATE)


@pytest.fixture(scope="module")
def reports(folder, food, processor) -> list[Path]:
    """Reports of both models on some images of a set that the page has."""
    files = []
    for name, place in {"first": emoji_folder() / "model", "second": folder / "outputs" / "clip-pmgaft-emoji"}.items():
        model = load_model(str(place))
        options = {"max_samples": 12, "progress": False, "probes": False}
        report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], **options)
        report.save(folder / f"{name}.json")
        files.append(folder / f"{name}.json")
    return files


# ---- The whole path ----


def test_the_whole_path(visit, kept, folder, reports):
    # An image, its classes, and an attack
    here = visit()
    here.draw(ROW)
    here.type_names(NAMES)
    here.type_number("radius", 8)
    here.type_number("steps", 5)
    here.attack()
    assert "PGD-5 margin linf 8/255" in here.page.locator("#status").inner_text()
    before, after = here.predictions("he image as it is"), here.predictions("nder PGD-5 margin linf 8/255")
    assert set(before) == set(after) == set(NAMES) and top(before) == "tangerine" != top(after)
    assert here.page.locator(f"img[alt^='{FIRST}. The model is fooled']").count() == 1
    assert "pmgaft attack " in here.page.locator("#command textarea").input_value()
    here.screenshot(kept / "attack.png")

    # The file that is downloaded, in the pipeline of transformers
    file = here.download(f"Adversarial image of {FIRST}, 8-bit PNG", folder / "adversarial.png")
    seen = classified(file)
    assert top(seen) == top(after)
    assert seen == pytest.approx(after, abs=1e-4)

    # Transfer
    here.tab("Transfer")
    here.page.click("#judge")
    assert here.judged(0) == pytest.approx(after)
    assert set(here.judged(1)) == set(NAMES) and here.judged(1) != pytest.approx(after, abs=1e-3)
    here.screenshot(kept / "transfer.png")

    # Reports
    here.tab("Reports")
    here.page.set_input_files("#reports input[type=file]", reports[0])
    frame = here.page.frame_locator("#report iframe")
    frame.get_by_role("heading", name="How robust is").wait_for()
    report = RobustnessReport.load(reports[0])
    assert f"{100 * report.mean_clean_accuracy:.1f} % without an attack" in frame.locator("main").inner_text()
    here.screenshot(kept / "report.png")


def top(predictions: dict[str, float]) -> str:
    return max(predictions, key=predictions.get)


def classified(file: Path) -> dict[str, float]:
    """What the pipeline of transformers says of a file, with the checkpoint as it lies on disk."""
    from transformers import pipeline

    pipe = pipeline("zero-shot-image-classification", str(emoji_folder() / "model"))
    answers = pipe(str(file), candidate_labels=NAMES, hypothesis_template=TEMPLATE)
    return {answer["label"]: answer["score"] for answer in answers}


def test_two_reports_are_compared_with_the_images_that_one_model_alone_has_right(visit, kept, reports, food, folder):
    here = visit()
    here.tab("Reports")
    here.page.set_input_files("#reports input[type=file]", reports)
    frame = here.page.frame_locator("#report iframe")
    frame.get_by_role("heading", name="first and second").wait_for()
    first, second = map(RobustnessReport.load, reports)
    columns = [report.sets[0].verdicts["robust"] for report in (first, second)]
    rows = [row for row, a, b in zip(first.sets[0].verdicts["sample_id"], *columns, strict=True) if a != b]
    assert rows
    for row in rows:
        label = food.class_names[food[row]["labels"]]
        picture = frame.get_by_alt_text(f"{label}, row {row} of food")
        assert picture.count() == 1 and picture.evaluate("image => image.naturalWidth") > 0
    frame.get_by_role("heading", name="alone has right").scroll_into_view_if_needed()
    here.page.screenshot(path=kept / "comparison.png")
    file = here.download("This page as a file", folder / "page.html")
    assert "first and second" in file.read_text(encoding="utf-8")

    # What is no report is said to be none, and what was shown stays.
    here.page.locator("#reports button[aria-label*='clear' i]").first.click()
    here.page.set_input_files("#reports input[type=file]", emoji_folder() / "model" / "config.json")
    assert "config is no whole robustness report" in here.error()
    text = folder / "notes.txt"
    text.write_text("just a text", encoding="utf-8")
    for put in (
        lambda: here.page.set_input_files("#reports input[type=file]", text),
        lambda: here.drop("#reports", text),
    ):
        here.page.locator("#reports button[aria-label*='clear' i]").first.click()
        put()
        assert "notes.txt is no whole robustness report" in here.error()
    assert here.fields_with_an_error() == 0


def test_several_reports_stand_side_by_side_and_two_are_chosen(visit, kept, reports, folder):
    third = shutil.copy(reports[0], folder / "third.json")
    here = visit()
    here.tab("Reports")
    here.page.set_input_files("#reports input[type=file]", [*reports, third])
    frame = here.page.frame_locator("#report iframe")
    frame.get_by_role("heading", name="first, second and third").wait_for()
    assert "second is ahead of first" in frame.locator("main").inner_text()
    here.screenshot(kept / "several.png")
    here.page.locator("#with input").click()
    here.page.get_by_role("option", name="third").click()
    frame.get_by_text("third is ahead of first by +0.0 points").wait_for()


def test_radius_0_changes_nothing(visit, food, folder):
    here = visit()
    here.draw(ROW)
    here.type_number("radius", 0)
    here.attack()
    before, after = here.predictions("he image as it is"), here.predictions("nder PGD")
    assert before == after and top(before) == "tangerine"
    file = here.download(f"Adversarial image of {FIRST}, 8-bit PNG", folder / "unchanged.png")
    with Image.open(file) as image:
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(levels, (food[ROW]["images"] * 255).round().byte())


def test_two_visitors_are_served_in_turn_with_right_answers(visit, food, processor):
    classifier = PictureClassifier(load_model(str(emoji_folder() / "model")), processor, food.class_names, TEMPLATE)
    first, second = visit(), visit()
    for here, row, steps in ((first, ROW, 100), (second, ROW + 1, 3)):
        here.draw(row)
        here.type_number("steps", steps)
    first.start()
    second.start()
    second.page.wait_for_function("/queue: \\d/.test(document.body.innerText)")
    assert first.curve is None  # so that the second one waits for the first
    for here, row, steps in ((first, ROW, 100), (second, ROW + 1, 3)):
        here.wait_for_attack(None)
        data = food[row]
        wanted = classifier.attack(
            data["images"],
            f"pgd,eps=4/255,num_steps={steps},loss=margin",
            label=food.class_names[data["labels"]],
            row=row,
        )
        for title, seen in (("he image as it is", wanted.before), ("nder PGD", wanted.after)):
            shown = here.predictions(title)
            assert len(shown) == 5 and top(shown) == seen.prediction
            assert shown == pytest.approx({name: seen.probabilities[name] for name in shown}, abs=1e-6)


# ---- Bad input ----


def test_bad_input_is_refused_in_the_package_s_words_and_the_page_goes_on(visit, kept, tmp_path):
    here = visit()
    here.draw(ROW)
    for names, message in (
        ([], "class names"),
        (["mango", "lemon", "mango"], "'mango'"),
        ([f"kind {number}" for number in range(10_000)], "10,000"),
    ):
        here.paste_names(names)
        here.start()
        assert message in here.error()
    here.screenshot(kept / "refused.png")

    here.type_names(NAMES)
    for name, content, message in (
        ("broken.png", png(8, 8)[:45], "a picture that is broken"),
        ("notes.png", b"just a text", "a picture that cannot be opened"),
        ("notes.txt", b"just a text", "a picture that cannot be opened"),
        ("large.png", png(8000, 5000), "40.0 million pixels; at most 25"),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        here.upload(file)
        assert message in here.error()
    here.take_away()
    here.drop("#image", tmp_path / "notes.txt")
    assert "a picture that cannot be opened" in here.error()

    # The same visitor, with an image that is one
    here.draw(ROW)
    here.type_names(NAMES)
    here.type_number("steps", 2)
    here.attack()
    seen = here.predictions("he image as it is")
    assert top(seen) == "tangerine"

    # What is refused leaves what was shown
    here.paste_names(["mango", "lemon", "mango"])
    here.start()
    assert "'mango'" in here.error()
    assert here.predictions("he image as it is") == seen
    assert here.fields_with_an_error() == 0
    here.screenshot(kept / "kept.png")


def png(width: int, height: int) -> bytes:
    """A white image of one bit a pixel, which is small however large it is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = (b"\0" + b"\xff" * ((width + 7) // 8)) * height
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


# ---- For everybody ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_rule_of_axe_is_broken_but_by_gradio_s_own_components(visit, kept, scheme, reports):
    here = visit(color_scheme=scheme)
    here.page.emulate_media(reduced_motion="reduce")
    here.draw(ROW)
    here.type_number("steps", 2)
    here.attack()
    broken = {}
    for tab in ("Attack", "Transfer", "Reports"):
        here.tab(tab)
        if tab == "Reports":
            here.page.set_input_files("#reports input[type=file]", reports[0])
            here.page.frame_locator("#report iframe").get_by_role("heading", name="How robust").wait_for()
        here.page.mouse.move(0, 0)
        here.screenshot(kept / f"{tab.lower()}-{scheme}.png")
        for rule in broken_rules(here.page, ("serious", "critical")):
            broken.setdefault(rule.partition(":")[0], rule)
    assert [rule for name, rule in broken.items() if name not in GRADIO_BREAKS] == []


def test_the_page_fits_a_phone(visit, kept, reports):
    here = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    here.type_number("steps", 2)
    here.attack()
    for tab in ("Attack", "Transfer", "Reports"):
        here.tab(tab)
        if tab == "Reports":
            here.page.set_input_files("#reports input[type=file]", reports)
            here.page.frame_locator("#report iframe").get_by_role("heading", name="first and second").wait_for()
        here.screenshot(kept / f"{tab.lower()}-phone.png")
        assert here.page.evaluate("document.documentElement.scrollWidth") <= 360
