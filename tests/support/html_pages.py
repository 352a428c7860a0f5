"""What stands in an HTML page, as a reader finds it."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page's tags with their attributes, its text, and its numbers with what they round.

    Attributes:
        tags (`list[tuple[str, dict]]`): In order.
        numbers (`list[tuple[float, str]]`): The exact value of each `<data>`, and what is shown.
        text (`str`): All text but that of styles.
    """

    def __init__(self, file: Path | str):
        super().__init__()
        self.tags, self.numbers, self.text = [], [], ""
        self._open: list[str] = []
        self.feed(Path(file).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "data":
            self.numbers.append((float(self.tags[-1][1]["value"]), data))
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict]:
        """The attributes of all tags of a name."""
        return [attrs for name, attrs in self.tags if name == tag]
