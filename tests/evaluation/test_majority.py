"""Majorities of draws: golden verdicts, what is noted, and the figures that are made of them."""

import json
from types import SimpleNamespace

import pytest
from support.paths import TESTS

from hf_pmgaft import AttackSpec
from hf_pmgaft.evaluation.draw_rules import Majority
from hf_pmgaft.evaluation.evaluate import _result
from hf_pmgaft.evaluation.majority import draw_figures, judged_random
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.evaluation.verdicts import CLEAN, Verdicts

GOLDEN = json.loads((TESTS / "golden" / "random_verdict.json").read_text())
MAJORITY = Majority()
SPEC = AttackSpec.parse("pgd,eps=4/255")
THROUGH, STRAIGHT, UNAWARE = (SPEC.by(attacker) for attacker in ("through", "straight_through", "unaware"))


def plan_of(attacks, count: int = 4) -> Plan:
    return Plan(SimpleNamespace(name="own", class_names=["a", "b"]), list(range(count)), list(attacks))


def noted(**values: list[list[int]]) -> Verdicts:
    """Draws by attack and image."""
    verdicts = Verdicts(None, {})
    for name, of_images in values.items():
        rows = [row for row, draws in enumerate(of_images) if draws is not None]
        verdicts.add("own", name, rows, [[of_images[row]] for row in rows])
    return verdicts


def golden_verdicts() -> Verdicts:
    columns = [[list(draws) for draws in zip(*of_attack, strict=True)] for of_attack in GOLDEN["correct"]]
    always = [[1] * 5] * 4
    return noted(**{CLEAN: always, THROUGH.name: columns[0], STRAIGHT.name: columns[1]})


def test_shares_and_verdicts_are_the_golden_ones():
    plan = plan_of([THROUGH, STRAIGHT])
    (judged,) = judged_random(plan, golden_verdicts(), MAJORITY, SPEC.threat, eight_bit=False)
    shares = [[drawn.share for drawn in judged.drawn[name]] for name in plan.names]
    assert shares == [pytest.approx(of_attack) for of_attack in GOLDEN["share"]]
    result = _result(judged, plan, SPEC.threat)
    assert result.verdicts["robust"] == GOLDEN["robust"] and result.robust_accuracy == GOLDEN["robust_accuracy"]
    assert result.draws["robust"]["every_draw"] == GOLDEN["any_draw_wrong"]
    worst = [min(shares) for shares in zip(*GOLDEN["share"], strict=True)]
    assert result.draws["robust"]["mean_share"] == pytest.approx(sum(worst) / 4)
    assert result.draws[THROUGH.name]["mean_share"] == pytest.approx(sum(GOLDEN["share"][0]) / 4)
    assert result.draws[CLEAN] == {"mean_share": 1.0, "every_draw": 1.0, "first_half": 1.0}


def test_an_attacker_goes_on_from_its_own_worst_point_and_from_the_clean_image():
    large = AttackSpec.parse("pgd,eps=8/255,attacker=through")
    verdicts = noted(
        **{
            CLEAN: [[1, 1, 1], [0, 1, 1], [0, 0, 1]],
            THROUGH.name: [[1, 1, 1], [1, 1, 1], None],
            large.name: [[1, 0, 0], [1, 1, 1], None],
            UNAWARE.name: [[0, 0, 0], [1, 1, 1], None],
        }
    )
    plan = plan_of([THROUGH, UNAWARE, large], count=3)
    (judged,) = judged_random(plan, verdicts, MAJORITY, large.threat, eight_bit=False)
    assert judged.clean == [True, True, False]
    # What is wrong without an attack is wrong under each, with the share that it has; so is the worst point so far.
    assert judged.masks == {
        THROUGH.name: [True, True, False],
        UNAWARE.name: [False, True, False],
        large.name: [False, True, False],
    }
    thirds = {name: [round(3 * drawn.share) for drawn in column] for name, column in judged.drawn.items()}
    assert thirds == {
        CLEAN: [3, 2, 1],
        THROUGH.name: [3, 2, 1],
        UNAWARE.name: [0, 2, 1],
        large.name: [1, 2, 1],
    }


def test_a_corruption_is_judged_for_itself_on_all_images():
    spec = AttackSpec.parse("corruption,kind=jpeg,severity=3")
    verdicts = noted(**{CLEAN: [[0, 0, 0], [1, 1, 1]], spec.name: [[1, 1, 1], [0, 1, 0]]})
    (judged,) = judged_random(plan_of([spec], count=2), verdicts, MAJORITY, spec.threat, eight_bit=False)
    assert judged.masks == {spec.name: [True, False]}


def test_rounded_points_stand_until_one_of_them_fools():
    large = AttackSpec.parse("pgd,eps=8/255,attacker=through")
    verdicts = Verdicts(None, {})
    verdicts.add("own", CLEAN, [0, 1, 2], [[[1]], [[1]], [[0]]])
    verdicts.add("own", THROUGH.name, [0, 1], [[[0], [1]], [[0], [0]]])
    verdicts.add("own", large.name, [0], [[[0], [1]]])
    (judged,) = judged_random(plan_of([THROUGH, large], count=3), verdicts, MAJORITY, large.threat, eight_bit=True)
    assert judged.masks[large.name] == [False, False, False] and judged.rounded == [True, False, False]


def test_figures_are_means_over_images_and_the_worst_is_taken_per_image():
    drawn = {
        "a": [MAJORITY.drawn([1, 1, 1, 1]), MAJORITY.drawn([1, 0, 0, 0])],
        "b": [MAJORITY.drawn([0, 0, 1, 1]), MAJORITY.drawn([1, 1, 1, 1])],
    }
    figures = draw_figures(drawn, ["a", "b"])
    assert figures["a"] == {"mean_share": 0.625, "every_draw": 0.5, "first_half": 0.5}
    assert figures["robust"] == {"mean_share": 0.375, "every_draw": 0.0, "first_half": 0.0}
    assert draw_figures(drawn, ["b"])["robust"] == figures["b"]
