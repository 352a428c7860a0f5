"""`compare_reports`: two models, image by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..fingerprints import differences
from .figure import Figure
from .intervals import Z_95, PairedDifference
from .outcomes import count_right, paired
from .report import RobustnessReport, SetResult
from .tables import Rounded, Rows, points, span_of_points


@dataclass
class Comparison:
    """Two reports of one protocol: paired differences per set, and of the mean over sets.

    Attributes:
        sets (`dict[str, dict[str, PairedDifference]]`): By set and figure (`clean`, `robust` and each attack).
        means (`dict[str, tuple[float, float, float]]`): By figure, of retrieval with the recall before it (`I2T R@1
            clean`), the mean over sets and its 95 % interval.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, compare_reports, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> comparison = compare_reports(report, report)
        >>> comparison.sets["food"]["clean"].difference, comparison.means["robust"]
        (0.0, (0.0, -0.15..., 0.15...))
    """

    sets: dict[str, dict[str, PairedDifference]]
    means: dict[str, tuple[float, float, float]]

    def rows(self) -> Rows:
        """A row per set and figure: difference in points, 95 % interval, images gained and lost, p."""
        rows = [["set", "figure", "difference", "95 %", "gained", "lost", "p"]]
        for name, pairs in self.sets.items():
            for key, pair in pairs.items():
                difference = [points(pair.difference), span_of_points(*pair.interval)]
                p_value = Rounded(f"{pair.p_value:.2g}", pair.p_value)
                rows.append([name, key, *difference, str(pair.gained), str(pair.lost), p_value])
        for key, (mean, low, high) in self.means.items():
            rows.append(["mean of sets", key, points(mean), span_of_points(low, high), "", "", ""])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return asdict(self)


def compare_reports(first: RobustnessReport, second: RobustnessReport, ignore: Sequence[str] = ()) -> Comparison:
    """Compares two models image by image: by how much the second one is right more often (McNemar).

    Figures that are pooled over pixels are compared by the paired bootstrap over images.

    Args:
        first, second (`RobustnessReport`): Of one protocol.
        ignore (`list[str]`): Keys of the protocol that may differ, such as `versions.torch` or `device`.

    Raises:
        ValueError: if their protocols differ, naming the keys.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> before = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> after = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> compare_reports(before, after).sets["food"]["robust"].difference
        0.0
    """
    _check_protocols("The reports", first, second, ignore)
    sets = {a.name: _differences_of_set(a, b) for a, b in zip(first.sets, second.sets, strict=True)}
    means = {}
    for figure in first.figures:
        of_sets = [sets[result.name] for result in first.of(figure).sets]
        prefix = "" if figure.is_accuracy else f"{figure.title} "
        for key in of_sets[0]:
            if all(key in pairs for pairs in of_sets):
                means[prefix + key] = _mean_difference([pairs[key] for pairs in of_sets])
    return Comparison(sets, means)


@dataclass(frozen=True)
class Disagreement:
    """The images of a set, or its queries, that one of two models has right and the other one wrong.

    Args:
        name (`str`), dataset (`str`): Of the row of the reports, and of its set.
        figure (`Figure`): What is right.
        rows (`list[int]`): All that were judged, by their `sample_id`.
        gained (`list[int]`): Those that the second model alone has right. Of segmentation, of which it has more right
            pixels.
        lost (`list[int]`): Those that the first one alone has right.

    Example:
        >>> found = Disagreement("food", "food", Figure(), rows=[3, 5, 8], gained=[8], lost=[3])
        >>> len(found.gained) - len(found.lost)
        0
    """

    name: str
    dataset: str
    figure: Figure
    rows: list[int]
    gained: list[int]
    lost: list[int]


def disagreements(first: RobustnessReport, second: RobustnessReport, key: str = "robust") -> list[Disagreement]:
    """Finds the images that one model has right and the other one wrong, for each row of two reports.

    Args:
        first, second (`RobustnessReport`): Of one protocol, as `compare_reports` takes them.
        key (`str`): Under what: `"clean"`, `"robust"`, or the name of an attack. Rows without it are left out.

    Raises:
        ValueError: if the reports are not of the same images, or no row has that key.

    Example:
        >>> def report(robust):
        ...     verdicts = {"sample_id": [3, 5, 8], "robust": robust}
        ...     return RobustnessReport({"attacks": []}, [SetResult("food", 4, 3, 1, sum(robust) / 3, {}, verdicts)])
        >>> (of_food,) = disagreements(report([1, 1, 0]), report([0, 1, 1]))
        >>> of_food.gained, of_food.lost
        ([8], [3])
    """
    pairs = [(a, b) for a, b in zip(first.sets, second.sets, strict=True) if key in _common_keys(a, b)]
    if not pairs:
        keys = [name for a, b in zip(first.sets, second.sets, strict=True) for name in _common_keys(a, b)]
        raise ValueError(
            f"You asked for the images that one model alone has right under {key!r}, which the reports do not have. "
            f"Choose one of {', '.join(dict.fromkeys(keys))}."
        )
    return [_disagreement(a, b, key) for a, b in pairs]


def check_one_protocol(reports: Mapping[str, RobustnessReport], ignore: Sequence[str] = ()) -> None:
    """Raises `ValueError` if a report follows another protocol than the first one, naming it and the keys.

    Example:
        >>> check_one_protocol({"a": RobustnessReport({"seed": 0}, []), "b": RobustnessReport({"seed": 1}, [])})
        Traceback (most recent call last):
        ValueError: The reports 'a' and 'b' follow different protocols, ... differ in seed. Evaluate both models ...
    """
    (first, one), *others = reports.items()
    for name, report in others:
        _check_protocols(f"The reports {first!r} and {name!r}", one, report, ignore)


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any], ignore: Sequence[str] = ()) -> list[str]:
    """The keys in which two protocols differ, but for those that may and what is under them.

    Example:
        >>> differing_keys({"seed": 0, "versions": {"torch": "2.7"}}, {"seed": 1, "versions": {}}, ["versions"])
        ['seed']
    """
    return [key for key in differences(first, second) if not _is_under(key, ignore)]


def _check_protocols(who: str, first: RobustnessReport, second: RobustnessReport, ignore: Sequence[str]) -> None:
    differing = differing_keys(first.protocol, second.protocol, ignore)
    if differing:
        raise ValueError(
            f"{who} follow different protocols, so that their figures cannot be compared; they differ in "
            f"{', '.join(differing)}. Evaluate both models in the same way."
        )


def _differences_of_set(first: SetResult, second: SetResult) -> dict[str, PairedDifference]:
    """By figure (`clean`, `robust` and each attack) the paired difference of two results on the same images."""
    keys = _common_keys(first, second)
    return {key: paired(first.figure, first.verdicts[key], second.verdicts[key]) for key in keys}


def _common_keys(first: SetResult, second: SetResult) -> list[str]:
    """Under what both results have verdicts; raises `ValueError` if these are not of the same images."""
    if first.verdicts.get("sample_id") != second.verdicts.get("sample_id") or not first.verdicts:
        raise ValueError(f"The reports hold no verdicts of the same images of {first.name!r}. Evaluate both anew.")
    return [key for key in first.verdicts if key in second.verdicts and key != "sample_id"]


def _disagreement(first: SetResult, second: SetResult, key: str) -> Disagreement:
    rows = first.verdicts["sample_id"]
    before, after = (list(map(count_right, result.verdicts[key])) for result in (first, second))
    gained = [row for row, a, b in zip(rows, before, after, strict=True) if b > a]
    lost = [row for row, a, b in zip(rows, before, after, strict=True) if a > b]
    return Disagreement(first.name, first.dataset, first.figure, rows, gained, lost)


def _is_under(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _mean_difference(pairs: list[PairedDifference]) -> tuple[float, float, float]:
    """Mean of independent sets' differences; their variances add up."""
    mean = sum(pair.difference for pair in pairs) / len(pairs)
    halves = [(pair.interval[1] - pair.interval[0]) / 2 / Z_95 for pair in pairs]
    half = Z_95 * math.sqrt(sum(half * half for half in halves)) / len(pairs)
    return mean, mean - half, mean + half
