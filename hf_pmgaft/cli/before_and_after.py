"""The table that a training ends with: every set before and after."""

from __future__ import annotations

from ..evaluation.report import RobustnessReport, SetResult, has_other_statistics

HEADER = f"{'set':<24}{'classes':>8}{'images':>8}{'clean before':>14}{'after':>7}{'robust before':>15}{'after':>7}"
WIDTHS = (14, 7, 15, 7)  # of the four figures


def comparison_table(before: RobustnessReport, after: RobustnessReport, in_domain: str | None) -> str:
    """Set, classes, images, clean and robust accuracy before and after, and the means, as text.

    Args:
        before (`RobustnessReport`), after (`RobustnessReport`): Of the same sets and attacks.
        in_domain (`str`, *optional*): The set whose classes were tuned on, without which a second mean is given.
    """
    attacks = ", ".join(attack.name for attack in before.attacks)
    lines = [f"{after.measure} in %, clean and robust ({attacks}; protocol {after.protocol_hash})", HEADER]
    for old, new in zip(before.sets, after.sets, strict=True):
        lines.append(_line_of_set(old, new, in_domain))

    lines.append("-" * len(HEADER))
    lines.append(_line("mean of all", "", "", _means(before, after)))
    if in_domain in {result.name for result in before.sets} and len(before.sets) > 1:
        lines.append(_line(f"mean without {in_domain}*", "", "", _means(before, after, in_domain)))
        lines.append(f"* its classes were tuned on ({in_domain}); the other sets are zero-shot")
    if has_other_statistics(before, after):
        lines.append("before: the model as it came, under its own pixel statistics")
    return "\n".join(lines)


def _line_of_set(old: SetResult, new: SetResult, in_domain: str | None) -> str:
    name = f"{old.name}*" if old.name == in_domain else old.name
    figures = [old.clean_accuracy, new.clean_accuracy, old.robust_accuracy, new.robust_accuracy]
    return _line(name, old.num_classes, old.num_samples, figures)


def _means(before: RobustnessReport, after: RobustnessReport, leave_out: str | None = None) -> list[float]:
    keys = ("clean_accuracy", "robust_accuracy")
    return [report.mean(key, leave_out) for key in keys for report in (before, after)]


def _line(name: str, classes: int | str, images: int | str, figures: list[float]) -> str:
    numbers = "".join(f"{100 * figure:>{width}.1f}" for figure, width in zip(figures, WIDTHS, strict=True))
    return f"{name:<24}{classes:>8}{images:>8}{numbers}"
