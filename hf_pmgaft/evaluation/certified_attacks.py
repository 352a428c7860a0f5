"""Attacks beside certificates: which ones at which radii, and what they leave standing of the same smoothed model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..attacks import WITHOUT_BALL
from ..attacks.ball import parse_radius
from ..attacks.options import parse_options, takes_attacker
from ..attacks.spec import AttackSpec
from .defended import Defended
from .outcomes import worst_case
from .protocol import describe_attack
from .report import RobustnessReport

Attack = AttackSpec | Mapping[str, Any] | str
NEVER = 0.999999  # the alpha of a prediction that abstains at ties alone


def ordered_radii(radii: Sequence[float | str]) -> list[float | str]:
    """Radii in L2 from the smallest on, as they were passed.

    Raises:
        ValueError: for none, what is none, and one that stands twice.

    Example:
        >>> ordered_radii(["1/2", 0, 0.25])
        [0, 0.25, '1/2']
    """
    if not radii:
        raise ValueError("You passed no radii, so there is nothing to show. Pass such as 0 0.25 0.5.")
    values = [parse_radius(radius, "l2") for radius in radii]
    if len(set(values)) < len(values):
        raise ValueError(f"You passed a radius twice: {list(radii)}. Name each once.")
    return [radius for _, radius in sorted(zip(values, radii, strict=True), key=lambda pair: pair[0])]


def attacks_at(attacks: Sequence[Attack], radii: Sequence[float | str]) -> list[AttackSpec]:
    """Each attack in L2 at each radius above 0, the smallest first.

    Raises:
        ValueError: for an attack with a radius, norm or source of its own, one without a ball, and no radius above 0.

    Example:
        >>> [spec.name for spec in attacks_at(["fgsm,attacker=through"], [0, 0.25, 0.5])]
        ['FGSM ce l2 0.25 (attacker=through)', 'FGSM ce l2 0.5 (attacker=through)']
    """
    given = [_checked(attack) for attack in attacks]
    above = [radius for radius in radii if parse_radius(radius, "l2") > 0]
    if given and not above:
        raise ValueError(
            f"You passed attacks with the radii {list(radii)}, of which none is above 0. Add one that is, or pass no "
            "attacks."
        )
    return [AttackSpec.of({**attack, "eps": radius, "norm": "l2"}) for radius in above for attack in given]


def smoothing_of(sigma: float | str) -> dict[str, Any]:
    """The defence that is attacked: what predicts the most frequent class, however small its lead.

    That is what a certificate is about. One that abstained where draws leave a doubt would be wrong more often, and no
    upper bound.

    Example:
        >>> smoothing_of("1/4")
        {'defence': 'smoothing', 'sigma': '1/4', 'alpha': 0.999999}
    """
    return {"defence": "smoothing", "sigma": sigma, "alpha": NEVER}


def describe_attacks(attacks: Sequence[AttackSpec], sigma: float | str, eot: int | None, draws: int) -> dict[str, Any]:
    """The attacks in the protocol, by all of their attackers; nothing if there are none.

    Example:
        >>> described = describe_attacks(attacks_at(["fgsm,attacker=through"], [0.25]), 0.1, eot=None, draws=50)
        >>> described["empirical"]["names"], described["empirical"]["eot"]
        (['FGSM ce (attacker=through, eot=4)'], 4)
    """
    if not attacks:
        return {}
    defended = Defended.of(smoothing_of(sigma), eot=eot, draws=draws)
    rows = defended.rows(attacks)
    return {
        "empirical": {
            "attacks": [describe_attack(spec) for spec in rows],
            "names": list(dict.fromkeys(spec.name.replace(f" {spec.threat}", "", 1) for spec in rows)),
            "eot": defended.eot,
            "draws": defended.draws,
            "verdict": "the most frequent class of the draws, a tie is wrong",
        }
    }


def standing(report: RobustnessReport, name: str, radii: Sequence[float | str]) -> dict[str, list[int]]:
    """By radius, which images of a set stand under all attacks of it, 1 or 0; of radius 0 those that are right.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> attacks = attacks_at(["fgsm"], [0.25])
        >>> report = evaluate_robustness(model, processor, [food], attacks, max_samples=4, progress=False)
        >>> {radius: len(stands) for radius, stands in standing(report, "food", [0, 0.25]).items()}
        {'0': 4, '0.25': 4}
    """
    (result,) = [each for each in report.sets if each.name == name]
    by_radius = {}
    for radius in radii:
        specs = [spec for spec in report.attacks if spec.radius == parse_radius(radius, "l2")]
        names = [part.name for spec in specs for part in spec.expand(result.num_classes)]
        columns = [result.verdicts[key] for key in names or ["clean"]]
        by_radius[str(radius)] = [int(stands) for stands in worst_case(*columns)]
    return by_radius


def file_of_sigma(verdict_file: str | os.PathLike | None, sigma: float | str) -> Path | None:
    """Where the verdicts on attacks at a sigma go.

    Example:
        >>> file_of_sigma("runs/found.jsonl", "1/4").as_posix(), file_of_sigma(None, 0.25)
        ('runs/found.sigma_1_4.jsonl', None)
    """
    if verdict_file is None:
        return None
    path = Path(verdict_file)
    return path.with_name(f"{path.stem}.sigma_{str(sigma).replace('/', '_')}{path.suffix}")


def _checked(attack: Attack) -> dict[str, Any]:
    """An attack's name and options; raises `ValueError` for one that is not of the ball of a certificate."""
    if isinstance(attack, str):
        given = parse_options(attack)
    else:
        given = attack.to_dict() if isinstance(attack, AttackSpec) else dict(attack)

    title = str(given.get("attack"))
    own = [f"{key}={given[key]}" for key in ("eps", "norm", "source") if key in given]
    if own:
        raise ValueError(
            f"You passed the attack {title} with {', '.join(own)}. Attacks here are in L2, at the radii of the "
            "tables, on the smoothed model itself. Leave that out."
        )
    if title in WITHOUT_BALL or not takes_attacker(title):
        raise ValueError(f"You passed the attack {title}, which knows no ball in L2. Pass such as pgd,num_steps=20.")
    return given
