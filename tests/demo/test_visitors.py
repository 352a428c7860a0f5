"""Who computes, and who may stop it."""

import pytest

from hf_pmgaft.demo.visitors import Stopped, Visitors


def test_a_run_goes_on_until_its_own_visitor_stops_it():
    visitors = Visitors()
    with visitors.run("first") as first, visitors.run("second") as second:
        assert visitors.stop("second") is second
        first.go_on("pass 1")
        with pytest.raises(Stopped, match="Stopped at the beginning"):
            second.go_on("pass 1")
    assert first.wait(0) and visitors.stop("first") is None


def test_a_run_ends_with_an_error_too():
    visitors = Visitors()
    with pytest.raises(ZeroDivisionError), visitors.run("first") as run:
        raise ZeroDivisionError
    assert run.wait(0) and visitors.stop("first") is None


def test_a_newer_run_of_a_visitor_outlives_the_end_of_an_older_one():
    visitors = Visitors()
    older = visitors.run("first")
    with older:
        newer = visitors.run("first")
        run = newer.__enter__()
    assert visitors.stop("first") is run
    newer.__exit__(None, None, None)


def test_all_are_stopped_when_the_page_closes():
    visitors = Visitors()
    with visitors.run("first") as first, visitors.run("second") as second:
        visitors.stop_all()
        for run in (first, second):
            with pytest.raises(Stopped):
                run.go_on("pass 1")
