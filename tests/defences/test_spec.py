"""A defence as it is asked for, made and reported."""

import pytest

from hf_pmgaft.defences import DEFENCES, RandomNoise
from hf_pmgaft.defences.spec import DefenceSpec


def test_a_text_a_dict_and_another_one_are_the_same_defence():
    spec = DefenceSpec.parse("random_noise,eps=8/255")
    assert spec == DefenceSpec.of({"defence": "random_noise", "eps": "8/255"}) == DefenceSpec.of(spec)
    assert spec == DefenceSpec.stored(spec.to_dict())
    assert spec.name == "random_noise" and spec.options == {"eps": "8/255"} and spec.is_random


@pytest.mark.parametrize("name", sorted(DEFENCES))
def test_every_defence_has_a_title_and_its_defaults(name):
    spec = DefenceSpec.parse(name)
    assert spec.title == DEFENCES[name].title != ""
    assert spec.to_dict() == {"defence": name, **spec.options}
    assert DefenceSpec.of(spec.to_dict()) == spec


def test_titles_name_what_is_off_its_default():
    assert DefenceSpec.parse("random_noise").title == "random noise"
    assert DefenceSpec.parse("random_noise,eps=8/255").title == "random noise (eps=8/255)"


def test_a_spec_wraps_a_classifier():
    defence = DefenceSpec.parse("random_noise,eps=8/255").wrap(None)
    assert isinstance(defence, RandomNoise) and defence.eps == 8 / 255


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("random_nose", "There is no defence 'random_nose'. Choose one of .*'random_noise'"),
        (4, "You passed the defence 4, which is no description of one"),
        ("random_noise,epsi=4/255", r"takes no epsi \(did you mean eps\?\). It takes: \['eps'\]"),
        ("random_noise,eps", r"\['eps'\], which is no option=value. Write as random_noise,eps=4/255"),
        ("random_noise,eps=1,eps=2", "has eps twice"),
        ("random_noise,eps=300/255", "The defence 'random_noise': You passed the radius 300/255"),
        ({"eps": "4/255"}, "There is no defence None"),
        ("ttc,threshold=.nan", "cannot take threshold=nan. Pass a number of 0 or more"),
        ("ttc,num_steps=two", "cannot take num_steps='two'. Pass an integer"),
        ("ttc,step_size=far", "The defence 'ttc': You passed the step size 'far'"),
    ],
)
def test_what_is_no_defence_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        DefenceSpec.of(given)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("clipure", "no model and no processor"), ("r_tpt", "no model and no processor and no class_")],
)
def test_a_defence_with_texts_of_its_own_says_what_it_was_not_given(name, missing):
    with pytest.raises(ValueError, match=f"makes texts of its own, and was given {missing}"):
        DefenceSpec.parse(name).wrap(None)
