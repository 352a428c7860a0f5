"""Plans: which rows, and which attacks in which order."""

import pytest
from support.masked import NAMES, make_masked
from support.sets import make_data
from support.tiny import make_images

from hf_pmgaft import AttackSpec, SegmentationDataset, ZeroShotDataset
from hf_pmgaft.evaluation.plan import Plan, group_of, sample_ids


def specs(*texts: str) -> list[AttackSpec]:
    return [AttackSpec.parse(text) for text in texts]


MIXED = [
    "pgd,eps=4/255",
    "pgd,eps=1,norm=l2",
    "fgsm,eps=2/255",
    "patch,size=4",
    "pgd,eps=8/255",
    "pgd,eps=4/255,loss=margin",
]


def test_smaller_radii_of_a_norm_come_first_and_else_the_order_is_kept(data):
    plan = Plan.of(data, specs(*MIXED))
    assert plan.names == [
        "FGSM ce linf 2/255",
        "PGD-10 ce linf 4/255",
        "PGD-10 margin linf 4/255",
        "PGD-10 ce linf 8/255",
        "PGD-10 ce l2 1",
        "PATCH 4x4",
    ]
    assert [group_of(spec) for spec in plan.attacks] == ["linf"] * 4 + ["l2", "patch 4x4"]


def test_what_leads_to_a_headline_are_its_attacks_and_smaller_radii_of_its_norm(data):
    plan = Plan.of(data, specs(*MIXED))
    assert plan.leading_to("linf 4/255") == plan.names[:3]
    assert plan.leading_to("l2 1") == ["PGD-10 ce l2 1"]
    assert plan.leading_to("patch 4x4") == ["PATCH 4x4"]


def test_an_attack_that_was_passed_twice_is_run_once(data):
    assert Plan.of(data, specs("pgd,eps=4/255", "pgd,eps=4/255,num_steps=10")).names == ["PGD-10 ce linf 4/255"]


def test_rows_are_all_or_those_that_the_seed_chooses(data):
    plan = Plan.of(data, specs("pgd,eps=4/255"), max_samples=10, seed=3)
    assert plan.rows == sample_ids(40, 10, 3) != sample_ids(40, 10, 4)
    assert len(set(plan.rows)) == 10 and plan.rows == sorted(plan.rows)
    assert Plan.of(data, specs("pgd,eps=4/255"), max_samples=100).rows == list(range(40))


def test_the_seed_chooses_which_images_are_evaluated():
    chosen = [sample_ids(40, 10, seed) for seed in range(30)]
    assert all(rows == sorted(set(rows)) and len(rows) == 10 for rows in chosen)
    assert len({tuple(rows) for rows in chosen}) == 30 and set().union(*chosen) == set(range(40))
    assert sample_ids(40, 10, 7) == chosen[7]
    assert sample_ids(40, None, 7) == sample_ids(40, 40, 7) == list(range(40))


def test_rows_of_a_set_can_be_fixed_and_some_of_them_be_chosen(fitted):
    fixed = [3, 30, 7, 21]
    data = ZeroShotDataset(make_images(40, seed=9), fitted[1], name="own", sample_ids=fixed)
    assert Plan.of(data, specs("pgd,eps=4/255")).rows == fixed
    few = Plan.of(data, specs("pgd,eps=4/255"), max_samples=2).rows
    assert len(few) == 2 and set(few) < set(fixed)


def test_texts_are_class_names_and_labelled_is_the_set_where_nothing_is_ranked(fitted):
    data = make_data(fitted[1])
    plan = Plan.of(data, specs("pgd,eps=4/255"))
    assert plan.name == "own" and plan.texts == data.class_names and plan.labelled is data and plan.gallery is None


def test_classes_too_few_for_a_loss_are_refused(fitted):
    two = make_images(8).filter(lambda row: row["label"] < 2)
    data = ZeroShotDataset(two, fitted[1], ["red disc", "green disc"], "a photo of the {}", "two")
    for attack, needed in (("pgd,eps=1/255,loss=dlr", 3), ("apgd_t,eps=1/255", 4)):
        if "apgd" in attack:
            pytest.importorskip("pyautoattack")
        with pytest.raises(ValueError, match=f"at least {needed} classes.*the set has 2.*autoattack"):
            Plan.of(data, specs(attack))


def test_attacks_on_pixels_and_on_images_as_a_whole_are_refused_where_they_do_not_belong(data, fitted):
    for attack in ("sea,eps=4/255", "pgd,eps=4/255,loss=masked_ce"):
        with pytest.raises(ValueError, match="attack on the pixels of segmentation|is a loss of pixels"):
            Plan.of(data, specs("pgd,eps=4/255", attack))
    scenes = SegmentationDataset(make_masked(4), fitted[1], NAMES, name="scenes")
    for attack in ("cw,eps=0.5", "autoattack,eps=4/255", "pgd,eps=4/255,loss=dlr"):
        with pytest.raises(ValueError, match="no attack on pixels|whose loss is none of pixels"):
            Plan.of(scenes, specs("sea,eps=4/255", attack))
    plan = Plan.of(scenes, specs("sea,eps=4/255", "apgd,eps=2/255,loss=js", "pgd,eps=4/255"))
    assert plan.names == ["APGD-JS linf 2/255", "SEA-300 linf 4/255", "PGD-10 ce linf 4/255"]
