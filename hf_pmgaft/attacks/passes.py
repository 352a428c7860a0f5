"""How many passes an attack takes at most, told before it runs."""

from __future__ import annotations

from typing import NamedTuple

from .expected import CHOICE_DRAWS
from .sea import RADII, SEA_LOSSES
from .spec import AttackSpec


class Passes(NamedTuple):
    """Forward and backward passes of one image through a classifier.

    Example:
        >>> Passes(forward=22, backward=20)
        Passes(forward=22, backward=20)
    """

    forward: int
    backward: int


def most_passes(spec: AttackSpec, num_classes: int) -> Passes:
    """The passes of an image that no step of an attack fools. Any other image leaves earlier, or takes as many.

    With `eot`, each pass is one of every draw, and points are compared on further ones.

    Args:
        spec (`AttackSpec`): A single attack; [`AttackSpec.expand`] gives those of AutoAttack.
        num_classes (`int`): Of the classifier.

    Example:
        >>> most_passes(AttackSpec.parse("pgd,eps=4/255,num_steps=20"), num_classes=10)
        Passes(forward=22, backward=20)
    """
    passes = _of_one_draw(spec, num_classes)
    if "eot" not in spec.options:
        return passes

    eot = spec.options["eot"]
    walks = spec.walk(num_classes)
    ends = 0 if walks is None else walks.num_walks * (2 if spec.attack.startswith("apgd") else 1)
    compared = CHOICE_DRAWS * ends if ends > 1 else 0
    return Passes(eot * passes.forward + compared, eot * passes.backward)


def _of_one_draw(spec: AttackSpec, num_classes: int) -> Passes:
    options = spec.options
    num_steps = options.get("num_steps", 1)
    restarts = options.get("restarts", 1)
    targets = min(options.get("num_targets", 1), num_classes - 1)

    match spec.attack:
        case "corruption" | "universal":
            return Passes(0, 0)
        case "square":
            return Passes(1 + restarts * (options["num_queries"] + 1), 0)
        case "typographic":
            return Passes(min(options["words"], num_classes - 1) * options["places"], 0)
        case "patch":
            return Passes(options["places"] * (num_steps + 1), options["places"] * num_steps)

        # A gradient at each point but the last of each phase
        case "sea":
            walks = restarts * len(SEA_LOSSES)
            return Passes(1 + walks * (num_steps + len(RADII)), walks * num_steps)

        # A gradient of each class, or of one
        case "fab":
            return Passes(1 + restarts * (2 * num_steps + 1), restarts * num_steps * num_classes)
        case "fab_t":
            return Passes(2 + restarts * targets * (2 * num_steps + 2), restarts * targets * num_steps)

        # A gradient at each point but the last; in L1 the walk has three starts
        case "apgd" | "apgd_t":
            starts = 3 if spec.norm == "l1" else 1
            walks = restarts * targets
            gradients = walks * (num_steps + starts - 1)
            return Passes(2 + walks + gradients, gradients)

        case "cw" if spec.norm == "l2":
            gradients = options["search_steps"] * num_steps
            return Passes(1 + gradients, gradients)
        case _:  # PGD, and what is PGD by another name
            gradients = restarts * num_steps
            return Passes(1 + restarts + gradients, gradients)
