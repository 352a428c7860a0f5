"""Which images a universal perturbation was made on, which must not be among those that it is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..attacks.spec import AttackSpec
from ..attacks.universal import load_once
from ..data.evaluation_sets import EvaluationImages

_PLACE = ("path", "config", "split")  # of what a set's source says, that which tells sets apart


def describe_set(data: EvaluationImages) -> dict[str, Any]:
    """What a perturbation's protocol says of its set.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> describe_set(ZeroShotDataset(dataset, processor, name="food"))
        {'name': 'food'}
    """
    return {"name": data.name, **({"source": data.source} if data.source else {})}


def check_apart(spec: AttackSpec, data: EvaluationImages, rows: Sequence[int]) -> None:
    """Raises `ValueError` for a universal perturbation that was made on some of the rows of a set.

    Sets are the same if they were read from the same place and split, or else, where that is not known, if they share
    a name.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> check_apart(AttackSpec.parse("pgd,eps=4/255"), ZeroShotDataset(dataset, processor, name="food"), [0, 1])
    """
    if spec.attack != "universal":
        return
    perturbation = load_once(spec.options["file"])
    its_set = perturbation.protocol.get("set")
    if its_set is None or not _is_same(its_set, describe_set(data)):
        return

    made_on = rows if perturbation.rows is None else perturbation.rows.tolist()
    shared = sorted(set(rows) & set(made_on))
    if shared:
        raise ValueError(
            f"{spec.name} was made on {len(shared)} of the {len(rows)} images of {data.name!r} that it would be "
            f"judged on, such as row {shared[0]}. Make it on another split, or judge it on other rows."
        )


def _is_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if "source" in a and "source" in b:
        return all(a["source"].get(key) == b["source"].get(key) for key in _PLACE)
    return a["name"] == b["name"]
