"""Attacks of an evaluation as they are described, by text and by dict."""

import pytest
import yaml
from support.borders import Refused, check, outcomes

from hf_pmgaft import AttackSpec

EPS = {"attack": "pgd", "eps": "4/255"}
CASES = {
    "a text": ("pgd,eps=4/255,num_steps=50", "PGD-50 ce linf 4/255"),
    "spaces": (" pgd , eps = 4/255 , num_steps = 50 ", "PGD-50 ce linf 4/255"),
    "an unknown option": ("pgd,eps=4/255,steps=50", Refused("takes no steps")),
    "the same option twice": ("pgd,eps=4/255,eps=8/255", Refused("has eps twice")),
    "an option for the name": ("eps=4/255,num_steps=50", Refused("no attack 'eps=4/255'")),
    "nothing": ("", Refused("no attack ''")),
    "an unknown attack": ("pdg,eps=4/255", Refused("no attack 'pdg'")),
    "no radius": ("pgd,num_steps=50", Refused("no radius")),
    "a loss of another attack": ("apgd,eps=4/255,loss=kl", Refused("no loss 'kl'")),
    "no steps": ("pgd,eps=4/255,num_steps=0", Refused("num_steps=0, which is no count")),
    "fewer than no steps": ("apgd,eps=4/255,num_steps=-1", Refused("num_steps=-1")),
    "steps as a power": ("pgd,eps=4/255,num_steps=1e9", Refused("num_steps='1e9'")),
    "steps in words": ("pgd,eps=4/255,num_steps=ten", Refused("num_steps='ten'")),
    "half a step": ("pgd,eps=4/255,num_steps=2.5", Refused("num_steps=2.5")),
    "steps that are true": ({**EPS, "num_steps": True}, Refused("num_steps=True")),
    "no restarts": ("pgd,eps=4/255,restarts=0", Refused("restarts=0")),
    "restarts of none": ("pgd,eps=4/255,restarts=", Refused("restarts=None")),
    "a start in words": ("pgd,eps=4/255,random_start=maybe", Refused("random_start='maybe'")),
    "no start": ("pgd,eps=4/255,random_start=no,num_steps=5", "PGD-5 ce linf 4/255 (random_start=False)"),
    "a step in units of the radius": (
        "pgd,eps=4/255,num_steps=9,step_size=1/4 eps",
        "PGD-9 ce linf 4/255 (step_size=1/4 eps)",
    ),
    "steps that do not reach": (
        "pgd,eps=4/255,num_steps=2,step_size=1/255",
        Refused("Take 4 steps, pass a step size of 1.25eps"),
    ),
    "the start alone": ("pgd,eps=4/255,num_steps=1,step_size=0", "PGD-1 ce linf 4/255 (step_size=0)"),
    "a momentum in words": ({**EPS, "momentum": "much"}, Refused("momentum='much'")),
    "a momentum that is no number": ({**EPS, "momentum": float("nan")}, Refused("0 or more")),
    "a list for a loss": ({**EPS, "loss": ["ce"]}, Refused("no loss ['ce']")),
    "a list for a name": ({"attack": ["pgd"], "eps": "4/255"}, Refused("no attack ['pgd']")),
    "a list": ([EPS], Refused("no description")),
    "none": (None, Refused("no description")),
    "YAML that cannot be read": ("pgd,eps=4/255,loss=[ce", Refused("loss=[ce, which cannot be read")),
    "a norm that CW has not": ("cw,eps=0.5,norm=l1", Refused("no norm 'l1'")),
    "a colon for a stroke": ("pgd,eps=4:255", Refused("no number")),
    "a date": ("pgd,eps=2001-01-01", Refused("no number")),
    "a version that is none": ("autoattack,eps=4/255,version=quick", Refused("no version 'quick'")),
    "JSON": (yaml.safe_load('{"attack": "fgsm", "eps": "4/255"}'), "FGSM ce linf 4/255"),
    "an early stop before the start": ("pgd,eps=4/255,tau=-1", Refused("tau=-1")),
    "a patch of no size": ("patch,size=0", Refused("size=0")),
}


@outcomes(CASES)
def test_descriptions_of_attacks(given, outcome):
    check(lambda: AttackSpec.of(given).name, outcome)


def test_a_relative_step_follows_the_radius():
    for eps in ("1/255", "8/255"):
        spec = AttackSpec.parse(f"pgd,eps={eps},num_steps=4,step_size=0.5eps")
        assert spec.options["step_size"] == "0.5eps"
    default = AttackSpec.parse("pgd,eps=4/255,num_steps=5,step_size=0.5eps")
    assert default.name == "PGD-5 ce linf 4/255"  # the default's length, by another name


@pytest.mark.parametrize("text", ["pgd,eps=0", "apgd,eps=0"])
def test_no_radius_is_the_clean_image(text):
    assert AttackSpec.parse(text).radius == 0
