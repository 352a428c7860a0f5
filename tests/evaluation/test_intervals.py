"""Intervals against the values of textbooks."""

import math

import pytest

from hf_pmgaft.evaluation.intervals import paired_difference, wilson_interval


def test_wilson_interval_has_the_textbook_values():
    low, high = wilson_interval(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson_interval(0.0, 10)[0] == 0.0 and wilson_interval(1.0, 10)[1] == pytest.approx(1.0)


def test_of_no_images_nothing_is_known():
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_paired_differences_have_the_textbook_values():
    pair = paired_difference([1] * 15 + [0] * 85, [0] * 5 + [1] * 10 + [1] * 20 + [0] * 65)
    assert (pair.gained, pair.lost, pair.n, pair.difference) == (20, 5, 100, 0.15)
    assert pair.p_value == pytest.approx(0.00408, abs=1e-5)  # binomial, 5 or fewer of 25, twice
    p, q = 21 / 102, 6 / 102  # Bonett and Price: a half more on each side, in four cells of a half
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert pair.interval == pytest.approx((p - q - half, p - q + half))


def test_the_p_value_of_many_differences_is_near_the_exact_one():
    gained, lost = 560, 500
    pair = paired_difference([0] * gained + [1] * lost, [1] * gained + [0] * lost)
    exact = 2 * sum(math.comb(gained + lost, k) for k in range(lost + 1)) / 2 ** (gained + lost)
    assert pair.p_value == pytest.approx(exact, rel=0.01)
