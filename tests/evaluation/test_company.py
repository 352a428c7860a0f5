"""Processes of an evaluation wait for each other, and fail together."""

from collections import Counter

import pytest

from hf_pmgaft.evaluation import company as companies
from hf_pmgaft.evaluation.company import Company


@pytest.fixture
def counts(monkeypatch) -> Counter:
    """What two processes count together, of which this is one; nobody sleeps."""
    counted: Counter[str] = Counter()

    def count_together(name: str, more: int) -> int:
        counted[name] += more
        return counted[name]

    monkeypatch.setattr(companies, "count_together", count_together)
    monkeypatch.setattr(companies, "process_share", lambda: (0, 2))
    return counted


def when_asleep(monkeypatch, *happenings) -> list[float]:
    """Lets something happen at each sleep, and fails if there is one too many."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        happenings[len(slept)]()
        slept.append(seconds)

    monkeypatch.setattr(companies.time, "sleep", sleep)
    return slept


def test_who_is_early_waits_until_all_are_there(counts, monkeypatch):
    with Company() as company:
        meeting = f"{company.name}/0"
        slept = when_asleep(monkeypatch, lambda: None, lambda: counts.update([meeting]))
        company.meet()
        assert len(slept) == 2 and counts[meeting] == 2


def test_who_is_last_waits_for_nobody(counts, monkeypatch):
    slept = when_asleep(monkeypatch)
    with Company() as company:
        for number in range(3):  # a meeting of its own each time
            counts[f"{company.name}/{number}"] += 1
            company.meet()
    assert slept == []


def test_an_error_is_told_and_ends_the_waiting_of_others(counts, monkeypatch):
    with pytest.raises(OSError, match="broken"), Company() as company:
        raise OSError("broken")
    assert counts[f"{company.name}/failed"] == 1

    with Company() as other:  # the next evaluation knows nothing of it
        when_asleep(monkeypatch, lambda: counts.update([f"{other.name}/failed"]))
        with pytest.raises(RuntimeError, match="Another process has failed"):
            other.meet()


def test_the_own_error_is_seen_where_the_others_cannot_be_told(monkeypatch):
    def gone(name: str, more: int) -> int:
        raise RuntimeError("Another process is gone")

    monkeypatch.setattr(companies, "count_together", gone)
    monkeypatch.setattr(companies, "process_share", lambda: (0, 2))
    with pytest.raises(OSError, match="broken"), Company():
        raise OSError("broken")
