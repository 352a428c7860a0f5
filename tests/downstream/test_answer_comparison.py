"""Reports on what models write, compared image by image."""

import copy
import json

import pytest

from hf_pmgaft.cli import compare
from hf_pmgaft.downstream.answer_comparison import compare_answers, load_answer_report
from hf_pmgaft.downstream.scores import YesNoScore

OWN = "own tower"


def cell(figure: str, scores: list, **more) -> dict:
    return {"clean": {figure: sum(scores) / len(scores), "worst_scores": scores, **more}}


def report(seed: int = 0, **towers) -> dict:
    return {"protocol": {"seed": seed, "versions": {"torch": "1"}}, "protocol_hash": "abc", "towers": towers}


LABELS = ["yes", "yes", "no", "no"]


def tasks(right: list[float], captions: list[float]) -> dict:
    return {
        "vqa": cell("vqa_accuracy", right),
        "caption": cell("cider_d", captions),
        "target 'cat'": cell("success", right),
        "pope": cell("f1", right, counts=YesNoScore(LABELS).counts(right)),
    }


@pytest.fixture
def first() -> dict:
    return report(**{OWN: tasks([0, 0, 0, 1], [0.5, 1.5, 0.25, 0.75])})


@pytest.fixture
def second() -> dict:
    return report(**{OWN: tasks([1, 1, 0, 1], [1.0, 2.5, 0.25, 0.75])})


def test_scores_are_paired_by_image(first, second):
    pairs = {task: cells["clean"] for task, cells in compare_answers(first, second).towers[OWN].items()}
    assert (pairs["vqa"].difference, pairs["vqa"].gained, pairs["vqa"].lost, pairs["vqa"].p_value) == (0.5, 2, 0, 0.5)
    assert pairs["caption"].difference == pytest.approx(0.375) and pairs["caption"].gained == 2
    low, high = pairs["caption"].interval
    assert 0 <= low < 0.375 < high
    assert pairs["target 'cat'"].difference == -0.5 and pairs["target 'cat'"].lost == 2
    # F1 goes from 0 of 3 to 4 of 5: the second misses no yes, and one no
    assert pairs["pope"].difference == pytest.approx(0.8)


def test_towers_of_other_names_are_paired_if_there_is_one_in_each(first, second):
    first["towers"]["tecoa"] = first["towers"][OWN]
    second["towers"]["fare"] = second["towers"][OWN]
    assert list(compare_answers(first, second).towers) == [OWN, "fare minus tecoa"]
    second["towers"]["third"] = second["towers"][OWN]
    with pytest.raises(ValueError, match="none says which belong"):
        compare_answers(first, second)


def test_other_protocols_are_refused_unless_it_is_said_what_may_differ(first, second):
    second["protocol"]["versions"]["torch"] = "2"
    with pytest.raises(ValueError, match=r"differ in versions\.torch"):
        compare_answers(first, second)
    assert compare_answers(first, second, ignore=["versions"]).towers


def test_the_command_compares_them(first, second, tmp_path, capsys):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, content in zip(files, (first, second), strict=True):
        file.write_text(json.dumps(content))
    compare.main([*map(str, files), "--output_file", str(tmp_path / "out.json")])
    assert "+50.0" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["towers"][OWN]["vqa"]["clean"]["gained"] == 2

    with pytest.raises(SystemExit, match="--plots with reports of attack-vlm"):
        compare.main([*map(str, files), "--plots", str(tmp_path / "pictures")])
    other = copy.deepcopy(first)
    del other["towers"]
    files[1].write_text(json.dumps(other))
    assert load_answer_report(files[1]) is None
    with pytest.raises(SystemExit, match="one.json is no whole robustness report"):
        compare.main([*map(str, files)])
