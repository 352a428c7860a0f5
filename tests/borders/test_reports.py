"""Files that are taken for reports: compared image by image, or one clear refusal."""

import copy
import json

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft import RobustnessReport
from hf_pmgaft.cli.compare import compare
from hf_pmgaft.evaluation.comparison import compare_reports
from hf_pmgaft.evaluation.report import SetResult

PROTOCOL = {"attacks": [], "headline": "linf 4/255", "seed": 0, "versions": {"torch": "2.9"}}


def make_report(clean=(1, 1, 1, 0), robust=(1, 0, 0, 0), rows=(0, 1, 2, 3), **protocol) -> RobustnessReport:
    verdicts = {"sample_id": list(rows), "clean": list(clean), "robust": list(robust)}
    shares = [sum(values) / len(values) for values in (clean, robust)]
    result = SetResult("food", 10, len(rows), *shares, attacks={}, verdicts=verdicts)
    return RobustnessReport({**PROTOCOL, **protocol}, [result])


def edited(change) -> str:
    """The report as JSON, after a change of its content."""
    content = copy.deepcopy(make_report(robust=(1, 1, 0, 0)).to_dict())
    change(content)
    return json.dumps(content)


def of_set(**values):
    return lambda content: content["sets"][0].update(values)


WHOLE = json.dumps(make_report(robust=(1, 1, 0, 0)).to_dict())
NO_SHARE = Refused("no share from 0 to 1")

FILES = {
    "another report": (WHOLE, 0.25),
    "a byte order mark": ("\ufeff" + WHOLE, 0.25),
    "a field of another version": (edited(of_set(seconds=3)), 0.25),
    "no threats, as versions before had": (edited(lambda content: content["sets"][0].pop("threats")), 0.25),
    "cut off": (WHOLE[:300], Refused("is no whole robustness report")),
    "empty": ("", Refused("is no whole robustness report")),
    "a list": ("[]", Refused("is no whole robustness report")),
    "a hundred thousand brackets": ("[" * 100_000, Refused("is no whole robustness report (RecursionError")),
    "binary": (b"\x00\xff\xfe", Refused("is no whole robustness report")),
    "a card": ("---\nlicense: mit\n---\n# A model", Refused("is no whole robustness report")),
    "a verdict file": ('{"protocol": {}, "model": {}}\n', Refused("is no whole robustness report (KeyError: 'sets')")),
    "an edited protocol": (edited(lambda content: content["protocol"].update(seed=1)), Refused("was changed")),
    "no hash": (edited(lambda content: content.pop("protocol_hash")), Refused("KeyError: 'protocol_hash'")),
    "no sets": (edited(lambda content: content.update(sets=[])), Refused("it has no sets")),
    "NaN": (edited(of_set(clean_accuracy=float("nan"))), NO_SHARE),
    "percent": (edited(of_set(clean_accuracy=75.0)), NO_SHARE),
    "below zero": (edited(of_set(robust_accuracy=-0.5)), NO_SHARE),
    "a text for a figure": (edited(of_set(clean_accuracy="0.75")), NO_SHARE),
    "nothing for a figure": (edited(of_set(clean_accuracy=None)), NO_SHARE),
    "a better figure than its verdicts": (edited(of_set(robust_accuracy=0.75)), Refused("its verdicts give 0.5")),
    "no samples": (edited(of_set(num_samples=0)), Refused("'food' has 0 samples")),
    "too few verdicts": (
        edited(lambda content: content["sets"][0]["verdicts"].update(clean=[1])),
        Refused("1 entries of clean for 4 samples"),
    ),
    "no verdicts": (edited(of_set(verdicts={})), Refused("no verdicts of the same images of 'food'")),
    "an unknown figure": (edited(of_set(figure="R@5")), Refused("which no report has")),
    "another protocol": (json.dumps(make_report(seed=1).to_dict()), Refused("they differ in seed")),
    "other images": (
        json.dumps(make_report(rows=(4, 5, 6, 7)).to_dict()),
        Refused("no verdicts of the same images of 'food'"),
    ),
}


@outcomes(FILES)
def test_files_that_are_compared_with_a_report(given, outcome, tmp_path):
    make_report().save(tmp_path / "first.json")
    second = tmp_path / "second.json"
    second.write_bytes(given if isinstance(given, bytes) else given.encode())

    def gained():
        reports = [RobustnessReport.load(tmp_path / name) for name in ("first.json", "second.json")]
        return compare_reports(*reports).sets["food"]["robust"].difference

    check(gained, outcome)


def test_what_is_no_file_of_a_report_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder and no report. Pass the file, such as .*robustness\.json"):
        RobustnessReport.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        RobustnessReport.load(tmp_path / "gone.json")


def test_a_report_is_not_compared_with_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_report().save("one.json")
    with pytest.raises(ValueError, match="You passed one.json twice"):
        compare("one.json", f"{tmp_path}/one.json")


def test_errors_of_a_content_name_what_they_were_told_and_no_path():
    assert RobustnessReport.from_json(WHOLE.encode(), "mine.json").mean_robust_accuracy == 0.5
    with pytest.raises(ValueError, match=r"^mine.json is no whole robustness report \(KeyError: 'sets'\)"):
        RobustnessReport.from_json(b"{}", "mine.json")
