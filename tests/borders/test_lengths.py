"""Radii and lengths of steps as they are typed."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from support.borders import Refused, check, outcomes

from hf_pmgaft import PMGAFTConfig
from hf_pmgaft.attacks import ATTACKS, WITHOUT_BALL, parse_radius
from hf_pmgaft.attacks.ball import parse_step_size
from hf_pmgaft.attacks.spec import AttackSpec

RADII = {
    "a fraction": ("4/255", 4 / 255),
    "grey levels": ("4", Refused("write 4/255")),
    "one grey level": ("1", Refused("write 1/255")),
    "one grey level, as a float": (1.0, Refused("write 1.0/255")),
    "all grey levels": ("255/255", Refused("Write such as 4/255")),
    "a decimal comma": ("0,01", Refused("is no number")),
    "divided by zero": ("1/0", Refused("is no number")),
    "negative": ("-1/255", Refused("0 or more")),
    "negative twice": ("4/-255", Refused("0 or more")),
    "not a number": ("nan", Refused("is no number")),
    "infinite": ("inf", Refused("is no number")),
    "infinitely small": ("4/inf", Refused("is no number")),
    "beyond floats": ("1e999", Refused("0 or more")),
    "spaces": (" 4 / 255 ", 4 / 255),
    "in units of itself": ("4/255eps", Refused("is no number")),
    "in pixels": ("4px", Refused("is no number")),
    "a share": ("1.5%", Refused("is no number")),
    "true": (True, Refused("is no number")),
    "none": (None, Refused("is no number")),
    "nothing": ("", Refused("is no number")),
    "no denominator": ("4/", Refused("is no number")),
    "two lines of a fraction": ("4/255/2", Refused("is no number")),
    "NumPy": (np.float32(0.25), 0.25),
    "a fraction object": (Fraction(4, 255), 4 / 255),
    "an exponent": ("1e-3", 0.001),
    "no leading zero": (".5", 0.5),
    "digits of full width": ("０.１", 0.1),
    "an underscore": ("1_0/255", Refused("is no number")),
    "a tuple": ((4, 255), Refused("is no number")),
    "zero": (0, 0.0),
}


@outcomes(RADII)
def test_radii(given, outcome):
    check(lambda: parse_radius(given), outcome)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_radii_of_other_norms_are_as_large_as_they_are(norm):
    assert parse_radius("128/255", norm) == 128 / 255 and parse_radius(1, norm) == 1 and parse_radius("3", norm) == 3


STEPS = {
    "the radius": ("1eps", 0.1),
    "a part of it": ("0.25eps", 0.025),
    "a fraction of it": ("2/3 eps", 0.1 * 2 / 3),
    "spaces": (" 2 / 4  eps ", 0.05),
    "absolute": ("1/255", 1 / 255),
    "a number": (0.05, 0.05),
    "grey levels": ("1", Refused("write 1/255")),
    "no number before it": ("eps", Refused("is no length")),
    "a number after it": ("eps/4", Refused("is no length")),
    "a sum": ("1 + 1eps", Refused("is no length")),
    "capitals": ("1EPS", Refused("is no length")),
    "negative": ("-1eps", Refused("0 or more")),
    "divided by zero": ("1/0 eps", Refused("is no length")),
    "not a number": ("naneps", Refused("is no length")),
    "true": (True, Refused("is no length")),
    "a list": (["1eps"], Refused("is no length")),
}


@outcomes(STEPS)
def test_step_sizes(given, outcome):
    right = outcome if isinstance(outcome, Refused) else pytest.approx(outcome, rel=1e-12)
    check(lambda: parse_step_size(given, eps=0.1), right)


@pytest.mark.parametrize("field", ["eps", "eval_eps", "step_size", "eval_step_size"])
def test_one_grey_level_is_no_radius_of_a_run(field, tmp_path):
    with pytest.raises(ValueError, match=f"{field}: .*write 1/255"):
        PMGAFTConfig(str(tmp_path), **{field: "1"}, use_cpu=True)


def test_one_grey_level_is_no_radius_of_an_attack():
    images, labels = torch.full((1, 3, 16, 16), 0.5), torch.tensor([0])
    for name in sorted(set(ATTACKS) - {*WITHOUT_BALL, "cw", "universal"}):
        with pytest.raises(ValueError, match="write 1/255"):
            ATTACKS[name](lambda x: x.flatten(1)[:, :5], images, labels, eps="1")
        with pytest.raises(ValueError, match="write 1/255"):
            AttackSpec.of({"attack": name, "eps": "1"})
    assert AttackSpec.parse("pgd,eps=1,norm=l2").radius == 1


@pytest.mark.parametrize("eps", ["0.9", "254/255"])
def test_the_default_step_is_not_held_against_anyone(eps, tmp_path):
    assert PMGAFTConfig(str(tmp_path), eps=eps, num_steps=2, use_cpu=True).attack_options()["step_size"] is None
    spec = AttackSpec.of({"attack": "pgd", "eps": eps, "num_steps": 2})
    assert spec.options["step_size"] == 2.5 * parse_radius(eps) / 2
    assert AttackSpec.of(spec) == spec
