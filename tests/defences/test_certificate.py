"""What counts prove: golden values, exact fractions, and how often a bound is wrong."""

import math
from fractions import Fraction
from statistics import NormalDist

import pytest
from support.defended import GOLDEN

from hf_pmgaft.defences.certificate import (
    Certificate,
    certified_radius,
    largest_radius,
    lead_p_value,
    lower_bound,
    predict,
)

CERTIFY, PREDICT = GOLDEN["smoothing"]["certify"], GOLDEN["smoothing"]["predict"]


@pytest.mark.parametrize("case", CERTIFY, ids=lambda case: f"{case['count']}-of-{case['n']}")
def test_bounds_radii_and_abstentions_are_the_golden_ones(case):
    count, n, sigma, alpha = (case[key] for key in ("count", "n", "sigma", "alpha"))
    bound = lower_bound(count, n, alpha)
    assert bound == pytest.approx(case["lower_bound"], rel=1e-9)
    assert certified_radius(bound, sigma) == pytest.approx(case["radius"] or 0.0, rel=1e-7)

    prediction, radius = Certificate.of([1, 3], [n - count, count], sigma, alpha)
    assert prediction == (-1 if case["abstain"] else 1)
    assert radius == certified_radius(bound, sigma)


@pytest.mark.parametrize("case", PREDICT, ids=lambda case: "-".join(map(str, case["counts"])))
def test_predictions_and_p_values_are_the_golden_ones(case):
    assert lead_p_value(case["counts"]) == pytest.approx(case["p_value"], rel=1e-9)
    assert predict(case["counts"], case["alpha"]) == case["prediction"]


def test_a_tie_of_two_classes_abstains():
    assert lead_p_value([50, 50, 3]) == 1.0
    assert predict([50, 50, 3], alpha=0.999) == -1


def tail(successes: int, draws: int, p: Fraction) -> Fraction:
    """`P(Bin(draws, p) >= successes)`, exactly, over a common denominator."""
    up, whole = p.numerator, p.denominator
    down = whole - up
    terms = (math.comb(draws, k) * up**k * down ** (draws - k) for k in range(successes, draws + 1))
    return Fraction(sum(terms), whole**draws)


@pytest.mark.parametrize(("successes", "draws"), [(1, 400), (3, 7), (200, 400), (391, 400), (399, 400), (400, 400)])
@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.7])
def test_the_bound_solves_the_binomial_tail_to_the_twelfth_digit(successes, draws, alpha):
    bound, step = Fraction(lower_bound(successes, draws, alpha)), Fraction(1, 10**12)
    assert tail(successes, draws, bound - step) < alpha < tail(successes, draws, bound + step)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_a_bound_is_above_the_probability_with_at_most_alpha(p, alpha):
    n = 200
    above = [k for k in range(n + 1) if lower_bound(k, n, alpha) > p]
    assert sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in above) <= alpha
    if p < 0.99:  # of which 200 draws are too few
        assert lower_bound(above[0] - 1, n, alpha) <= p  # and no earlier count is
        assert sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(above[0] - 1, n + 1)) > alpha


def test_the_class_is_that_of_the_selection_alone_of_several_the_first():
    assert Certificate.of([5, 5, 1], [100, 0, 0], 1.0, 0.01).prediction == 0
    assert Certificate.of([5, 6, 1], [100, 0, 0], 1.0, 0.01) == (-1, 0.0)
    assert Certificate.of([0, 6, 1], [0, 100, 0], 0.5, 0.01).radius == largest_radius(100, 0.01, 0.5)


def test_a_certificate_holds_of_its_class_up_to_its_radius():
    certificate = Certificate(2, 0.5)
    assert certificate.holds(2, 0.5) and certificate.holds(2, 0.0)
    assert not certificate.holds(2, 0.51) and not certificate.holds(1, 0.1)
    assert not Certificate(-1, 0.0).holds(-1, 0.0)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.125])
def test_draws_that_are_too_few_are_refused_and_one_more_is_enough(alpha):
    least = next(n for n in range(1, 99) if alpha ** (1 / n) > 0.5)
    assert largest_radius(least, alpha, 2.0) == pytest.approx(2.0 * NormalDist().inv_cdf(alpha ** (1 / least)))
    with pytest.raises(ValueError, match=f"If all {least - 1} agree, .* Pass draws from {least}, or a larger alpha"):
        largest_radius(least - 1, alpha, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lower_bound(5, 4, 0.1), "successes=5 of draws=4"),
        (lambda: lower_bound(-1, 4, 0.1), "successes=-1, which is no count"),
        (lambda: lower_bound(0, 0, 0.1), "draws=0, which is no count"),
        *(
            (lambda alpha=alpha: lower_bound(1, 4, alpha), "You passed alpha=")
            for alpha in (0, 1, True, "0.1", math.nan)
        ),
        (lambda: predict([3, 2], 1.5), "You passed alpha=1.5"),
        (lambda: predict([3], 0.1), r"counts=\[3\]. Pass counts of two classes"),
        (lambda: predict([0, 0], 0.1), "not all of them 0"),
        (lambda: predict([3, 0.5], 0.1), "counts=0.5, which is no count"),
    ],
)
def test_what_is_no_count_and_no_probability_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
