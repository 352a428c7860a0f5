"""The quick-start notebook runs, and shows reports."""

import ast
import json
import re

from support.paths import EXAMPLES
from transformers import CLIPModel


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
        assert re.search('<th scope="row">food</th>.*data:image/png', found._repr_html_(), re.S)
    assert before.sets[0].clean_accuracy > 0.6 and before.protocol_hash == after.protocol_hash
    assert before.model["fingerprint"] != after.model["fingerprint"]
    assert size == CLIPModel.from_pretrained("clip-pmgaft").num_parameters()
    assert after.protocol_hash in (tmp_path / "clip-pmgaft" / "README.md").read_text()


def test_the_notebook_is_stored_without_outputs():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
