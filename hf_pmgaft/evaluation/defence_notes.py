"""How a defended model was measured, in words: what tables and cards say below their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..attacks.spec import AttackSpec
from ..defences import ATTACKERS, DEFENCES
from ..defences.spec import DefenceSpec

OF_EVALUATION = ("eot", "draws")  # what stands in the protocol beside the defence's own options
IN_WORDS = {
    "unaware": "unaware, on the bare model to the end, judged by the defence",
    "through": "through the whole defence",
    "straight_through": "straight through, past its gradient",
}


def defence_notes(entry: Mapping[str, Any] | None, attacks: Sequence[AttackSpec]) -> list[str]:
    """How a defence was measured, a line each; none without one.

    Args:
        entry (`dict`, *optional*): Of the defence in the protocol.
        attacks (list of `AttackSpec`): All attacks of the protocol.

    Example:
        >>> attacks = [AttackSpec.parse("fgsm,eps=4/255").by(attacker) for attacker in ("unaware", "through")]
        >>> for line in defence_notes({"defence": "ensemble"}, attacks):
        ...     print(line)
        Defended at test time by views. Robust is, per image, the worst of all attackers: unaware, on the bare model to
        the end, judged by the defence; and through the whole defence.
        Straight through would be the same attack as through, and is not run again.
    """
    if entry is None:
        return []
    spec = DefenceSpec.stored({key: value for key, value in entry.items() if key not in OF_EVALUATION})
    of_attacks = {attack.attacker for attack in attacks}
    attackers = [attacker for attacker in ATTACKERS if attacker in of_attacks]
    lines = [f"Defended at test time by {spec.title}. {_who_counts(attackers)}".strip()]

    is_known = spec.name in DEFENCES
    if is_known and attackers[-1:] == ["through"] and "straight_through" not in spec.attackers:
        lines.append("Straight through would be the same attack as through, and is not run again.")
    if any(attack.source is not None for attack in attacks):
        lines.append(
            "Images from another model were made without the defence, which judges them: threats of their own."
        )
    if "draws" in entry:
        lines.append(
            f"The defence draws at random: {_verdicts(spec, entry['draws'])}, and steps of the attacks that know "
            f"it go by the mean over {entry['eot']}, unless they say otherwise."
        )
    return lines


def _who_counts(attackers: Sequence[str]) -> str:
    """Of whom robust is the worst."""
    words = [IN_WORDS[attacker] for attacker in attackers]
    if len(words) < 2:
        return "".join(f"Its one attacker is {text}." for text in words)
    return f"Robust is, per image, the worst of all attackers: {'; '.join(words[:-1])}; and {words[-1]}."


def _verdicts(spec: DefenceSpec, draws: int) -> str:
    """How draws make a verdict, in words."""
    if "alpha" not in spec.options:
        return f"verdicts are majorities of {draws} draws that no attack saw"
    return (
        f"verdicts are the most frequent class of {draws:,} draws that no attack saw, or an abstention, which is "
        f"wrong, where a two-sided test at alpha = {spec.options['alpha']} does not tell it from the next one"
    )
