"""What an attack says of a defence: who attacks it, and over how many draws a step is averaged."""

import pytest
import torch

from hf_pmgaft import AttackSpec, defences
from hf_pmgaft.attacks import ATTACKS
from hf_pmgaft.attacks.options import ATTACKERS, parse_options
from hf_pmgaft.evaluation.plan import group_of

ADAPTIVE = sorted(set(ATTACKS) - {"corruption", "universal"})
SHORT = {
    "cw": {"eps": 0.1, "num_steps": 5, "search_steps": 1},
    "fgsm": {"eps": 0.1},
    "patch": {"size": 3, "num_steps": 4},
    "square": {"eps": 0.1, "num_queries": 20},
    "typographic": {"height": 0.8},
}


def test_the_attackers_are_those_of_the_defences():
    assert defences.ATTACKERS is ATTACKERS == ("unaware", "through", "straight_through")


@pytest.mark.parametrize("name", ADAPTIVE)
def test_any_attack_that_looks_at_the_classifier_may_name_its_attacker(name):
    own = {"attack": name, **SHORT.get(name, {"eps": 0.1})}
    plain = AttackSpec.of(own)
    spec = AttackSpec.of({**own, "attacker": "through", "eot": 4})
    assert spec.to_dict() == {**plain.to_dict(), "attacker": "through", "eot": 4}
    assert spec == plain.by("through", eot=4) == AttackSpec.of(spec)
    assert (spec.attacker, plain.attacker, spec.threat) == ("through", None, plain.threat)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pgd,eps=4/255,num_steps=20,loss=margin", "PGD-20 margin linf 4/255 (attacker=through, eot=4)"),
        ("apgd_t,eps=4/255,num_steps=20", "APGD-T linf 4/255 (num_steps=20, attacker=through, eot=4)"),
        ("autoattack,eps=4/255", "AutoAttack standard linf 4/255 (attacker=through, eot=4)"),
        ("patch,size=16", "PATCH 16x16 (attacker=through, eot=4)"),
    ],
)
def test_the_name_says_who_attacks(text, name):
    assert AttackSpec.parse(f"{text},attacker=through,eot=4").name == name
    assert AttackSpec.parse(text).by("through", eot=4).name == name


def test_autoattack_hands_its_attacker_on_to_its_parts():
    whole = AttackSpec.parse("autoattack,eps=4/255")
    parts = whole.expand(10)
    assert whole.by("straight_through", eot=2).expand(10) == [part.by("straight_through", eot=2) for part in parts]
    assert all("attacker" not in part.to_dict() for part in parts)


def test_attackers_never_go_on_from_what_another_one_left():
    spec = AttackSpec.parse("pgd,eps=4/255")
    groups = [group_of(each) for each in (spec, *(spec.by(attacker) for attacker in ATTACKERS))]
    assert len(set(groups)) == 4
    assert group_of(AttackSpec.parse("fgsm,eps=8/255,attacker=through")) == group_of(spec.by("through"))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_attack_itself_is_the_same_whoever_it_is_by(name):
    weights = torch.randn(768, 5, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    own = {"attack": name, **SHORT.get(name, {"eps": 0.1, "num_steps": 4})}

    def run(spec):
        labels, seeds = (images.flatten(1) @ weights).argmax(1), torch.tensor([3, 4])
        return spec.run(lambda points: points.flatten(1) @ weights, images, labels, seeds, class_names=list("abcde"))

    plain = AttackSpec.of(own)
    by = plain.by("through", eot=3)
    assert torch.equal(run(by), run(plain))
    assert by.walk(5) == plain.walk(5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgd,eps=4/255,attacker=nobody", "no attacker 'nobody'.*straight_through"),
        ("pgd,eps=4/255,attacker=through,eot=0", "eot=0"),
        ("pgd,eps=4/255,attacker=through,eot=1.5", "eot=1.5"),
        ("pgd,eps=4/255,attacker=unaware,eot=2", "eot with attacker='unaware'.*Leave one"),
        ("autoattack,eps=4/255,attacker=nobody", "no attacker 'nobody'"),
        ("corruption,kind=jpeg,severity=3,attacker=through", "takes no attacker"),
        ("sea,eps=4/255,attacker=through", "takes no attacker"),
    ],
)
def test_what_no_attacker_can_be_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec.of(parse_options(text))
