"""What a notebook shows of a report, and the quick-start notebook itself."""

import ast
import json
import re
from html.parser import HTMLParser

from support.paths import EXAMPLES
from transformers import CLIPModel

from hf_pmgaft.evaluation.report import RobustnessReport, SetResult

PGD = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin", "restarts": 1}
EVIL = "<script>alert('x')</script>"


class Tags(HTMLParser):
    """The tags and the cells of a page; fails on a tag that is not closed."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.rows = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def report(name: str = "food", flags: tuple = (), picture: bytes | None = None) -> RobustnessReport:
    sets = [SetResult(name, 10, 150, 0.74, 0.43, {}, threats={"linf 4/255": 0.43})]
    protocol = {"attacks": [PGD], "headline": "linf 4/255"}
    return RobustnessReport(protocol, sets, flags=list(flags), picture=picture)


def test_a_notebook_shows_the_table_and_under_which_protocol():
    shown = report()._repr_html_()
    header, food, mean = Tags(shown).rows
    assert header[:5] == ["set", "classes", "images", "clean", "robust linf 4/255"]
    assert food == ["food", "10", "150", "74.0", "43.0", "35.3 to 51.0"]
    assert mean[:1] == ["mean of sets"] and "74.0" in mean and "43.0" in mean
    assert "PGD-20 margin linf 4/255" in shown and report().protocol_hash in shown
    assert "img" not in Tags(shown).tags


def test_figures_of_a_head_are_not_called_zero_shot():
    by_head = RobustnessReport({**report().protocol, "head": {"name": "NearestClassMean"}}, report().sets)
    assert "Accuracy by NearestClassMean" in by_head._repr_html_() and "Zero-shot" not in by_head._repr_html_()
    assert "Zero-shot accuracy" in report()._repr_html_()


def test_names_and_messages_are_text_and_never_markup():
    shown = report(EVIL, [{"flag": EVIL, "set": EVIL, "message": EVIL}])._repr_html_()
    assert set(Tags(shown).tags) == {"p", "table", "tr", "th", "td"}
    assert shown.count("&lt;script&gt;") == 4


def test_the_picture_is_inline_and_no_part_of_what_is_saved(tmp_path):
    pictured = report(picture=b"\x89PNG")
    assert '<img alt="samples" src="data:image/png;base64,iVBORw==">' in pictured._repr_html_()
    assert pictured == report() and pictured.to_dict() == report().to_dict()


def cells() -> list[dict]:
    return json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]


def test_the_quick_start_notebook_runs_and_shows_reports_with_pictures(tmp_path, monkeypatch):
    (tmp_path / "emoji").symlink_to(EXAMPLES / "emoji")
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    for cell in cells():
        if cell["cell_type"] == "code":
            *lines, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(lines, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
            else:
                exec(compile(ast.Module([last], []), "cell", "exec"), names)
    _, before, after, size = shown
    for found in (before, after):
        assert re.search("<td>food</td>.*data:image/png", found._repr_html_(), re.S)
    assert before.sets[0].clean_accuracy > 0.6 and before.protocol_hash == after.protocol_hash
    assert before.model["fingerprint"] != after.model["fingerprint"]
    assert size == CLIPModel.from_pretrained("clip-pmgaft").num_parameters()
    assert after.protocol_hash in (tmp_path / "clip-pmgaft" / "README.md").read_text()


def test_the_notebook_is_stored_without_outputs():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
