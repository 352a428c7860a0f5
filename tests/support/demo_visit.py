"""Somebody at the page of the demo with a browser: what he types, presses and sees."""

from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 300_000  # milliseconds, on a machine that does other work beside it
READY = "Boolean(document.querySelector('#attack'))"


class Visit:
    """A page that is open in a context of its own.

    Args:
        browser: See [`support.browser.open_browser`].
        address (`str`): Of the page.
        options: Of the context, such as `color_scheme="dark"`.

    Attributes:
        requests (`list[str]`): The URLs that the page asked for.
        problems (`list[str]`): What the browser complained of.
    """

    def __init__(self, browser, address: str, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        self.context.set_default_timeout(TIMEOUT)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.goto(address)
        self.page.wait_for_function(READY)

    def close(self) -> None:
        self.context.close()

    def tab(self, name: str) -> None:
        """Turns to a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def screenshot(self, file: Path) -> None:
        """Keeps what there is to see, all of it."""
        self.page.screenshot(path=file, full_page=True)

    # ---- The image, its classes, and the attack ----

    def draw(self, row: int) -> None:
        """Draws a row of the first set."""
        self.page.get_by_label("Row", exact=True).fill(str(row))
        self.page.get_by_role("button", name="Draw an image").click()
        self.page.wait_for_selector(f"#image img[alt^='Row {row} of']")

    def upload(self, file: Path) -> None:
        """Puts a file in place of the image."""
        self.take_away()
        self.page.set_input_files("#image input[type=file]", file)

    def take_away(self) -> None:
        """Leaves no image."""
        if self.page.locator("#image img").count():
            self.page.get_by_label("Remove Image").click()
            self.page.locator("#image img").wait_for(state="detached")

    def drop(self, place: str, file: Path) -> None:
        """Drops a text file on the field of a place."""
        make = """([name, text]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], name, { type: "text/plain" }));
            return transfer;
        }"""
        transfer = self.page.evaluate_handle(make, [file.name, file.read_text(encoding="utf-8")])
        self.page.locator(f"{place} input[type=file]").dispatch_event("drop", {"dataTransfer": transfer})

    def type_names(self, names: Sequence[str]) -> None:
        """Types class names, one a line."""
        self.page.fill("#class_names textarea", "\n".join(names))

    def paste_names(self, names: Sequence[str]) -> None:
        """Puts in so many class names that typing would take minutes."""
        put = "(field, text) => { field.value = text; field.dispatchEvent(new Event('input', { bubbles: true })); }"
        self.page.locator("#class_names textarea").evaluate(put, ", ".join(names))

    def type_number(self, field: str, value: int) -> None:
        """Sets a slider by its number: `radius` or `steps`."""
        number = self.page.locator(f"#{field} input[type=number]")
        number.fill(str(value))
        number.press("Tab")

    def start(self) -> None:
        """Presses *Attack*."""
        self.page.click("#attack")

    def attack(self) -> None:
        """Presses *Attack*, and waits until the page shows what came of it."""
        before = self.curve
        self.start()
        self.wait_for_attack(before)

    @property
    def curve(self) -> str | None:
        """Where the picture of the margins is, which is a new one after each attack."""
        curve = self.page.locator("img[alt^='The margin of each model']")
        return curve.get_attribute("src") if curve.count() else None

    def wait_for_attack(self, before: str | None) -> None:
        """Waits for another picture of the margins than one before."""
        seen = "[...document.images].find(image => image.alt.startsWith('The margin of each model'))?.src"
        self.page.wait_for_function(f"before => {{ const now = {seen}; return now && now !== before; }}", arg=before)

    # ---- What the page says ----

    def predictions(self, title: str, model: int = 0) -> dict[str, float]:
        """By class name the probabilities of a list of predictions with such a title, the most probable first.

        Args:
            title (`str`): Stands in the title.
            model (`int`): Of which model, by its place on the page.
        """
        titles = self.page.locator("label").filter(has_text=title)
        return self._probabilities(self.page.locator(".block").filter(has=titles).nth(model))

    def judged(self, model: int) -> dict[str, float]:
        """What a model says in the tab *Transfer*."""
        return self._probabilities(self.page.locator(f"#judged-{model}"))

    def _probabilities(self, block) -> dict[str, float]:
        block.locator("[data-testid=label-output-value]").wait_for()
        meters = block.locator("meter")
        return dict(
            meters.evaluate_all("all => all.map(each => [each.ariaLabel, Number(each.getAttribute('value'))])")
        )

    def download(self, name: str, file: Path) -> Path:
        """Presses a button that gives a file."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=name).click()
        download.value.save_as(file)
        return file

    def error(self) -> str:
        """What the page says that cannot work; it is closed then."""
        toast = self.page.locator("[data-testid=toast-body]").first
        toast.wait_for()
        text = toast.inner_text()
        self.page.locator("[data-testid=toast-close]").first.click()
        toast.wait_for(state="hidden")
        return text

    def fields_with_an_error(self) -> int:
        """On how many fields the word is to be seen. What is said to screen readers lies on none."""
        fields = self.page.locator("[data-testid=status-tracker]")
        return fields.get_by_text("Error", exact=True).filter(visible=True).count()
