"""The options of `pytest` that this suite adds, and the environments that CI makes."""

from types import SimpleNamespace

import pytest
from support.minimum import oldest_versions
from support.options import fail_if_it_lacks, is_in_third

COMMITS = ("0" * 40, "0" * 39 + "1", "0" * 39 + "2")


def test_three_commits_in_a_row_of_hashes_run_every_test_once():
    tests = [collected(f"tests/test_a.py::test_{i}") for i in range(300)]
    thirds = [[test for test in tests if is_in_third(test, commit)] for commit in COMMITS]
    assert sorted(sum(thirds, []), key=tests.index) == tests
    assert all(len(third) > 60 for third in thirds)


def test_tests_that_share_a_launch_are_in_the_same_third():
    tests = [collected(f"tests/test_a.py::test_{i}", "zero1") for i in range(20)]
    assert sorted(sum(is_in_third(test, commit) for test in tests) for commit in COMMITS) == [0, 0, 20]


def collected(name: str, group: str | None = None) -> SimpleNamespace:
    """A collected test, of a group or of none."""
    mark = group and SimpleNamespace(args=(group,))
    return SimpleNamespace(nodeid=name, get_closest_marker={"xdist_group": mark}.get)


@pytest.mark.parametrize("outcome, reason, wanted", [
    ("skipped", "Skipped: could not import 'open_clip': No module named 'open_clip'", "failed"),
    ("skipped", "Skipped: there is no GPU", "skipped"),
    ("passed", "open_clip", "passed"),
])  # fmt: skip
def test_a_skip_for_want_of_what_must_be_there_fails(outcome, reason, wanted):
    report = SimpleNamespace(outcome=outcome, longrepr=("file", 1, reason), skipped=outcome == "skipped")
    assert fail_if_it_lacks(report, ["open_clip", "torchvision"]).outcome == wanted


def test_the_oldest_versions_are_the_lower_bounds_of_what_tests_need():
    requirements = ["torch>=2.7", "peft<1,>=0.20", 'pytest>=8; extra == "test"', 'furo>=1; extra == "docs"', "tqdm"]
    assert oldest_versions(requirements) == ["torch==2.7", "peft==0.20", "pytest==8", "tqdm"]
