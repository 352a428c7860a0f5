"""What pages say of figures in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from ..evaluation.comparison import Comparison
from ..evaluation.report import RobustnessReport
from ..evaluation.tables import percent, points, span_of_points

# What each flag of `hf_pmgaft.evaluation.sanity` means for a reader.
FLAGS = {
    "random": "The model answers one image differently each time, so attacks aim at a moving target. Attack and judge "
    "it as a random defence.",
    "probabilities": "The model gives probabilities where attacks need logits, which hides gradients. Attack its "
    "logits.",
    "zero gradients": "Some images give an attack no direction to go, so it stays where it is. Other losses, or "
    "attacks without gradients, may do better.",
    "huge radius": "Images withstand a change so large that any image could become plain grey. The attack does not "
    "work on this model.",
    "noise": "Random noise fools images that the attack did not. The attack is too weak.",
    "weak attack": "Attacks on one loss leave images standing that attacks on another loss fool. Believe the latter.",
    "black box": "An attack without gradients finds what those with gradients missed. Gradients are probably masked.",
    "unaware attack": "An attack that does not know the defence does better than those that do. These are too weak.",
    "masked gradients": "An attack past the defence's gradient does better than the one through it. The defence hides "
    "gradients more than it protects.",
    "above clean": "The model is right more often under attack than without. The attacks are no attacks.",
    "transfer": "Images made on another model fool more than attacks on this one, which see its gradients. These are "
    "too weak.",
    "few draws": "Half as many draws of the defence would give another figure. More draws are needed.",
}


def summary(name: str, report: RobustnessReport) -> str:
    """A report in a sentence or two.

    Example:
        >>> from hf_pmgaft.evaluation.report import SetResult
        >>> sets = [SetResult("food", 10, 150, 0.74, 0.43, {})]
        >>> attack = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin"}
        >>> print(summary("CLIP", RobustnessReport({"attacks": [attack], "headline": "linf 4/255"}, sets)))
        Zero-shot accuracy of CLIP is 74.0 % without an attack, and 43.0 % under PGD-20 margin linf 4/255 (food)...
    """
    of_means = report.of()
    attacks = " and ".join(spec.name for spec in report.headline_attacks)
    over = report.mean_title if len(of_means.sets) > 1 else of_means.sets[0].name
    if len(of_means.figures) > 1:
        over = f"mean of {len(of_means.sets)} figures"
    return (
        f"{of_means.measure} of {name} is {percent(report.mean_clean_accuracy)} % without an attack, and "
        f"{percent(report.mean_robust_accuracy)} % under {attacks} ({over}). A stronger attack can only lower the "
        "second figure."
    )


def comparison_summary(first: str, second: str, comparison: Comparison) -> str:
    """A comparison in two sentences: of the first figure, clean and under the headline."""
    of_keys = {}
    for key, means in comparison.means.items():
        of_keys.setdefault(key.split(" ")[-1], means)
    clean, robust = (_difference(of_keys[key]) for key in ("clean", "robust"))
    return (
        f"{second} is ahead of {first} by {clean} without an attack, and by {robust} under the headline's attacks: "
        "means over the sets, with 95 % intervals paired by image. Below zero it is behind."
    )


def _difference(means: tuple[float, float, float]) -> str:
    mean, low, high = means
    return f"{points(mean)} points ({span_of_points(low, high)})"


def flags_in_words(report: RobustnessReport) -> list[Mapping[str, str]]:
    """The flags of a report, each with its `meaning`.

    Example:
        >>> flag = {"flag": "noise", "set": "food", "message": "random noise in the ball fools 3 of 32 images"}
        >>> flags_in_words(RobustnessReport({}, [], flags=[flag]))[0]["meaning"]
        'Random noise fools images that the attack did not. The attack is too weak.'
    """
    return [{**flag, "meaning": FLAGS.get(flag["flag"], "")} for flag in report.flags]
