"""The options of `pytest` that this suite adds, and the environments that CI makes."""

from types import SimpleNamespace

import pytest
from support.minimum import oldest_versions
from support.options import fail_if_it_lacks, is_in_third

COMMITS = ("0" * 40, "0" * 39 + "1", "0" * 39 + "2")


def test_three_commits_in_a_row_of_hashes_run_every_test_once():
    names = [f"tests/test_a.py::test_{i}" for i in range(300)]
    thirds = [{name for name in names if is_in_third(name, commit)} for commit in COMMITS]
    assert sum(map(len, thirds)) == 300 and set.union(*thirds) == set(names)
    assert all(len(third) > 60 for third in thirds)


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
