"""The report: means, tables, what a notebook shows of it, and the file that it is saved as."""

import json
import math
from html.parser import HTMLParser

import pytest
from support.sets import MARGIN

from hf_pmgaft import AttackSpec, RobustnessReport, evaluate_robustness
from hf_pmgaft.evaluation.figure import Figure
from hf_pmgaft.evaluation.report import SetResult

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
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def report(name: str = "food", flags: tuple = ()) -> RobustnessReport:
    sets = [SetResult(name, 10, 150, 0.74, 0.43, {}, threats={"linf 4/255": 0.43})]
    protocol = {"attacks": [PGD], "headline": "linf 4/255"}
    return RobustnessReport(protocol, sets, flags=list(flags))


# ---- Figures ----


def test_means_count_every_set_the_same():
    sets = [SetResult("a", 2, 10, 1.0, 0.5, {}), SetResult("b", 2, 1000, 0.5, 0.0, {})]
    report = RobustnessReport({}, sets)
    assert report.mean_clean_accuracy == 0.75 and report.mean_robust_accuracy == 0.25
    assert report.mean("clean_accuracy", leave_out="b") == 1.0
    metrics = report.metrics()
    assert metrics["eval_a_robust_accuracy"] == 0.5 and metrics["eval_mean_robust_accuracy"] == 0.25


def test_the_mean_of_no_set_is_no_number():
    assert math.isnan(RobustnessReport({}, []).mean_robust_accuracy)


def test_means_are_over_the_kind_that_comes_first_or_over_one_figure():
    sets = [
        SetResult("pairs I2T R@1", 20, 10, 0.5, 0.1, {}, figure="I2T R@1"),
        SetResult("pairs I2T R@5", 20, 10, 0.9, 0.3, {}, figure=Figure.recall("I2T", 5)),
        SetResult("food", 4, 10, 0.0, 0.0, {}),
    ]
    report = RobustnessReport({}, sets)
    assert report.figures == [Figure.recall("I2T", 1), Figure.recall("I2T", 5), Figure()]
    assert report.mean_clean_accuracy == pytest.approx(0.7)
    assert report.of("I2T R@5").sets == report.of(Figure.recall("I2T", 5)).sets == sets[1:2]
    assert [result.dataset for result in sets] == ["pairs", "pairs", "food"]


def test_keys_of_metrics_hold_nothing_that_trackers_refuse():
    ranked = SetResult("my pairs I2T R@5", 20, 10, 0.5, 0.1, {}, figure="I2T R@5")
    pulled = SetResult("pairs target@1", 20, 10, 0.5, 0.1, {}, figure="target@1")
    metrics = RobustnessReport({}, [ranked, pulled]).metrics("test")
    assert list(metrics)[:4] == [
        "test_my_pairs_I2T_R5_clean_recall",
        "test_my_pairs_I2T_R5_robust_recall",
        "test_pairs_target1_clean_target_kept_out",
        "test_pairs_target1_robust_target_kept_out",
    ]


def test_attacks_are_specs_and_the_headline_has_those_of_its_threat():
    beside = {**PGD, "eps": "8/255"}
    report = RobustnessReport({"attacks": [PGD, beside], "headline": "linf 4/255"}, [])
    assert report.attacks == [AttackSpec.stored(PGD), AttackSpec.stored(beside)]
    assert report.headline_attacks == report.attacks[:1]
    assert RobustnessReport({"attacks": [PGD]}, []).headline_attacks == report.attacks[:1]


# ---- Tables ----


def test_radii_of_the_headlines_norm_have_columns_of_their_own():
    attacks = [PGD, {**PGD, "eps": "8/255"}, {**PGD, "eps": 1.0, "norm": "l2"}]
    threats = {"linf 4/255": 0.43, "linf 8/255": 0.1, "l2 1.0": 0.2}
    sets = [SetResult("food", 10, 150, 0.74, 0.43, {}, threats=threats, robust_8bit_accuracy=0.5)]
    header, food, mean = RobustnessReport({"attacks": attacks, "headline": "linf 4/255"}, sets).rows()
    assert header == ["set", "classes", "images", "clean", "robust linf 4/255", "95 %", "8 bit", "linf 8/255"]
    assert food == ["food", "10", "150", "74.0", "43.0", "35.3 to 51.0", "50.0", "10.0"]
    assert mean == ["mean of sets", "", "", "74.0", "43.0", "", "50.0", "10.0"]


def test_what_stands_after_each_attack_is_a_mean_over_the_sets_on_which_it_ran():
    jpeg = {"attack": "corruption", "kind": "jpeg", "severity": 2}
    sets = [
        SetResult("food", 10, 150, 0.8, 0.4, {"PGD": 0.4, "jpeg 2": 0.7}),
        SetResult("pets", 2, 150, 0.8, 0.2, {"PGD": 0.2, "APGD-T": 0.1, "jpeg 2": 0.7}),
    ]
    report = RobustnessReport({"attacks": [PGD, jpeg]}, sets)
    assert report.attack_rows() == [["attack", "sets", "standing"], ["PGD", "2", "30.0"], ["APGD-T", "1", "10.0"]]


def test_corruptions_have_a_row_by_kind_and_a_column_by_severity():
    kinds = [("jpeg", 1), ("fog", 3), ("jpeg", 3)]
    attacks = [{"attack": "corruption", "kind": kind, "severity": severity} for kind, severity in kinds]
    sets = [SetResult("food", 10, 150, 0.8, 0.4, {}, threats={"jpeg 1": 0.7, "fog 3": 0.5, "jpeg 3": 0.6})]
    assert RobustnessReport({"attacks": [PGD, *attacks]}, sets).corruption_rows() == [
        ["corruption", "severity 1", "severity 3"],
        ["jpeg", "70.0", "60.0"],
        ["fog", "", "50.0"],
    ]
    assert report().corruption_rows() == []


# ---- In a notebook ----


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
    assert set(Tags(shown).tags) == {"p", "table", "thead", "tbody", "tr", "th", "td", "data"}
    assert shown.count("&lt;script&gt;") == 4


def test_the_picture_is_inline_and_no_part_of_what_is_saved():
    pictured = report()
    pictured.picture = b"\x89PNG"
    assert '<img alt="samples" src="data:image/png;base64,iVBORw==">' in pictured._repr_html_()
    assert pictured == report() and pictured.to_dict() == report().to_dict()


# ---- On disk ----


def test_report_survives_saving(fitted, data, tmp_path):
    report = evaluate_robustness(*fitted, [data], [MARGIN], max_samples=6, progress=False)
    report.save(tmp_path / "robustness.json")
    loaded = RobustnessReport.load(tmp_path / "robustness.json")
    assert loaded == report and loaded.protocol_hash == report.protocol_hash
    assert loaded.sets[0] == report.sets[0]
    written = json.loads((tmp_path / "robustness.json").read_text())
    assert written["mean_robust_accuracy"] == report.mean_robust_accuracy
    assert MARGIN.items() <= written["protocol"]["attacks"][0].items()


def test_figures_are_saved_by_their_title():
    sets = [SetResult("pairs I2T R@1", 20, 10, 0.5, 0.1, {}, figure="I2T R@1"), SetResult("food", 4, 10, 0.5, 0.1, {})]
    saved = RobustnessReport({}, sets).to_dict()["sets"]
    assert [entry["figure"] for entry in saved] == ["I2T R@1", "accuracy"]
    assert [SetResult.stored(entry) for entry in saved] == sets


# As version 0.1.0 wrote it, before figures were a type of their own.
OLD = """{
 "protocol": {"attacks": [{"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin"}],
              "headline": "linf 4/255", "seed": 0},
 "protocol_hash": "%s",
 "model": {"fingerprint": "0123456789ab"},
 "flags": [],
 "mean_clean_accuracy": 0.5,
 "mean_robust_accuracy": 0.25,
 "sets": [{"name": "food", "num_classes": 2, "num_samples": 4, "clean_accuracy": 0.5, "robust_accuracy": 0.25,
           "attacks": {"PGD-20 margin linf 4/255": 0.25},
           "verdicts": {"sample_id": [0, 1, 2, 3], "clean": [1, 1, 0, 0], "robust": [1, 0, 0, 0]},
           "threats": {"linf 4/255": 0.25}, "robust_8bit_accuracy": null, %s
           "robust_interval_95": [0.0456, 0.6994]}]
}"""


@pytest.mark.parametrize("figure", ['"figure": "accuracy",', '"figure": "T2I R@10",', ""])
def test_a_report_of_an_older_version_is_opened(tmp_path, figure):
    (tmp_path / "old.json").write_text(OLD % ("cbbe9fb65ec4", figure))
    loaded = RobustnessReport.load(tmp_path / "old.json")
    assert loaded.sets[0].figure.title == ("T2I R@10" if "T2I" in figure else "accuracy")
    assert loaded.protocol_hash == "cbbe9fb65ec4" and loaded.mean_robust_accuracy == 0.25


def test_a_report_that_was_cut_off_or_changed_is_refused(fitted, data, tmp_path):
    file = tmp_path / "report.json"
    evaluate_robustness(*fitted, [data], [MARGIN], progress=False).save(file)
    content = json.loads(file.read_text())
    content["protocol"]["attacks"][0]["num_steps"] = 1000
    (tmp_path / "changed.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was changed"):
        RobustnessReport.load(tmp_path / "changed.json")
    for text in (file.read_text()[:200], "[]", '{"sets": []}', ""):
        file.write_text(text)
        with pytest.raises(ValueError, match="no whole robustness report"):
            RobustnessReport.load(file)
