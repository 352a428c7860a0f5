"""`RobustnessReport`: what an evaluation found, the protocol that it followed, and how two of them compare."""

from __future__ import annotations

import hashlib
import json
import math
import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from ..attacks.spec import attack_name, threat_name
from ..fingerprints import differences
from .intervals import Z_95, PairedDifference, paired_difference, wilson_interval

KINDS = {"accuracy": "accuracy", "I2T R@": "recall", "T2I R@": "recall", "target@": "target kept out"}


@dataclass
class SetResult:
    """Figures of one set, or one recall of it. Accuracies are fractions.

    Attributes:
        name (`str`), num_classes (`int`), num_samples (`int`): The set. Of a recall, with its name, how many
            candidates are ranked for how many queries.
        clean_accuracy (`float`): Without an attack.
        robust_accuracy (`float`): Worst case per image over the attacks of the headline threat.
        attacks (`dict[str, float]`): By attack, the share of images that stand after it and the ones before it.
        threats (`dict[str, float]`): By threat, the worst case over its attacks.
        robust_8bit_accuracy (`float`, *optional*): The headline with adversarial images rounded to 8 bits.
        verdicts (`dict[str, list[int]]`): Per image its row (`sample_id`), and 1 for right, 0 for wrong: `clean`,
            `robust` and each attack. Queries by text have the caption's number for a row.
        figure (`str`): What is right: the predicted class (`"accuracy"`), one of the first k texts of an image or
            images of a text (`"I2T R@k"`, `"T2I R@k"`), or that a target is not among the first k (`"target@k"`).
    """

    name: str
    num_classes: int
    num_samples: int
    clean_accuracy: float
    robust_accuracy: float
    attacks: dict[str, float]
    verdicts: dict[str, list] = field(default_factory=dict, repr=False)
    threats: dict[str, float] = field(default_factory=dict)
    robust_8bit_accuracy: float | None = None
    figure: str = "accuracy"

    @property
    def dataset(self) -> str:
        """Name of the set, without the figure that the name of a recall ends with."""
        return self.name if self.kind == "accuracy" else self.name.removesuffix(f" {self.figure}")

    @property
    def kind(self) -> str:
        """`"accuracy"`, `"recall"` or `"target kept out"`: only figures of one kind have a mean."""
        return next(kind for start, kind in KINDS.items() if self.figure.startswith(start))

    @property
    def robust_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the robust accuracy."""
        return wilson_interval(self.robust_accuracy, self.num_samples)


@dataclass
class RobustnessReport:
    """What `evaluate_robustness` found, with the protocol that it followed.

    Attributes:
        protocol (`dict`): Everything that the figures depend on but the model.
        sets (list of `SetResult`): In the order of evaluation.
        model (`dict`): Fingerprint of the weights, logit scale and pixel statistics.
        flags (list of `dict`): What smells: each with `flag`, `set` and `message`.
        picture (`bytes`, *optional*): A PNG of sample images that a notebook shows below the table; not saved.
    """

    protocol: dict[str, Any]
    sets: list[SetResult]
    model: dict[str, Any] = field(default_factory=dict)
    flags: list[dict[str, str]] = field(default_factory=list)
    picture: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def mean_clean_accuracy(self) -> float:
        """Mean over sets, each counting the same; of recalls, over all of them. See `of`."""
        return self.mean("clean_accuracy")

    @property
    def mean_robust_accuracy(self) -> float:
        """Mean over sets of the worst case over the attacks of the headline threat."""
        return self.mean("robust_accuracy")

    @property
    def protocol_hash(self) -> str:
        """Reports with equal hashes differ in the model alone."""
        text = json.dumps(self.protocol, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def headline_attacks(self) -> list[dict[str, Any]]:
        """The attacks whose worst case `robust_accuracy` is."""
        attacks = self.protocol["attacks"]
        return [spec for spec in attacks if threat_name(spec) == self.protocol.get("headline", threat_name(spec))]

    @property
    def measure(self) -> str:
        """What the figures are, by class names or by a head, or of retrieval."""
        head = self.protocol.get("head")
        accuracy = "zero-shot accuracy" if head is None else f"accuracy by {head['name']}"
        kinds = dict.fromkeys(result.kind for result in self.sets) or ["accuracy"]
        text = " and ".join(accuracy if kind == "accuracy" else kind for kind in kinds)
        return text[0].upper() + text[1:]

    @property
    def retrieval(self) -> list[str]:
        """What was ranked and attacked in retrieval, in words; nothing if there was none."""
        sets = [entry["retrieval"] for entry in self.protocol.get("sets", {}).values() if "retrieval" in entry]
        lines = [f"{name}: {text}." for entry in sets for name, text in entry["threats"].items()]
        return list(dict.fromkeys([*lines, *(f"Ties: {entry['ties']}." for entry in sets)]))

    @property
    def figures(self) -> list[str]:
        """The figures of the rows, each once: `accuracy`, `I2T R@1`, ..."""
        return list(dict.fromkeys(result.figure for result in self.sets))

    def of(self, figure: str | None = None) -> RobustnessReport:
        """The report with the rows of one figure alone; if none is named, with those that means are over: all that
        are of the first one's kind."""
        keep = [r for r in self.sets if (r.kind == self.sets[0].kind if figure is None else r.figure == figure)]
        return replace(self, sets=keep)

    def mean(self, key: str, leave_out: str | None = None) -> float:
        """Mean of a figure over the sets, without the one named `leave_out`; see `of`."""
        values = [getattr(result, key) for result in self.of().sets if result.name != leave_out]
        return sum(values) / len(values) if values else math.nan

    def mean_threat(self, threat: str) -> float:
        """Mean over sets of a threat's worst case; see `of`."""
        sets = self.of().sets
        return sum(result.threats[threat] for result in sets) / len(sets)

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Flat figures for logs: `eval_<set>_clean_accuracy`, ..., and the means over sets. Of recalls, without what
        trackers refuse: `eval_<set>_I2T_R1_clean_recall`, ..."""
        flat = {}
        for result in self.sets:
            name, kind = result.name, result.kind
            if kind != "accuracy":
                name, kind = name.replace(" ", "_").replace("@", ""), kind.replace(" ", "_")
            flat[f"{prefix}_{name}_clean_{kind}"] = result.clean_accuracy
            flat[f"{prefix}_{name}_robust_{kind}"] = result.robust_accuracy
        flat[f"{prefix}_mean_clean_accuracy"] = self.mean_clean_accuracy
        flat[f"{prefix}_mean_robust_accuracy"] = self.mean_robust_accuracy
        return flat

    def _repr_html_(self) -> str:
        """What a notebook shows: attacks, the table, flags and the picture."""
        from .tables import render, report_rows

        attacks = ", ".join(map(attack_name, self.headline_attacks))
        parts = [f"<p>{self.measure} in %, robust under {escape(attacks)}; protocol {self.protocol_hash}</p>"]
        parts.append(render(report_rows(self), "html"))
        parts += [f"<p>{escape('{flag} ({set}): {message}'.format(**flag))}</p>" for flag in self.flags]
        if self.picture is not None:
            parts.append(f'<img alt="samples" src="data:image/png;base64,{b64encode(self.picture).decode()}">')
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "model": self.model,
            "flags": self.flags,
            "mean_clean_accuracy": self.mean_clean_accuracy,
            "mean_robust_accuracy": self.mean_robust_accuracy,
            "sets": [asdict(result) | {"robust_interval_95": result.robust_interval} for result in self.sets],
        }

    def save(self, file: str | os.PathLike) -> None:
        """Writes the report as JSON, whole or not at all."""
        part = Path(file).with_name(Path(file).name + ".part")
        part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        part.replace(file)

    @classmethod
    def load(cls, file: str | os.PathLike) -> RobustnessReport:
        """Reads a report that `save` wrote.

        Raises:
            ValueError: if the file was cut off, is no report, or its protocol is not the one of its hash.
        """
        try:
            data = json.loads(Path(file).read_text(encoding="utf-8"))
            names = SetResult.__dataclass_fields__
            sets = [SetResult(**{k: v for k, v in row.items() if k in names}) for row in data["sets"]]
            report = cls(data["protocol"], sets, data.get("model", {}), data.get("flags", []))
            written = data["protocol_hash"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file} is no whole robustness report ({type(error).__name__}: {error}). Evaluate again; a verdict "
                "file goes on where it was interrupted."
            ) from error
        if written != report.protocol_hash:
            raise ValueError(f"{file} was changed: its protocol is not that of its hash {written}. Evaluate again.")
        return report


@dataclass
class Comparison:
    """Two reports of one protocol: paired differences per set, and of the mean over sets.

    Attributes:
        sets (`dict[str, dict[str, PairedDifference]]`): By set and figure (`clean`, `robust` and each attack).
        means (`dict[str, tuple[float, float, float]]`): By figure, of retrieval with the recall before it (`I2T R@1
            clean`), the mean over sets and its 95 % interval.
    """

    sets: dict[str, dict[str, PairedDifference]]
    means: dict[str, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return asdict(self)


def compare_reports(first: RobustnessReport, second: RobustnessReport, ignore: Sequence[str] = ()) -> Comparison:
    """How much better the second model does, image by image (McNemar).

    Args:
        first, second (`RobustnessReport`): Of one protocol.
        ignore (`list[str]`): Keys of the protocol that may differ, such as `versions.torch` or `device`.

    Raises:
        ValueError: if their protocols differ, naming the keys.
    """
    differing = [key for key in differences(first.protocol, second.protocol) if not _under(key, ignore)]
    if differing:
        raise ValueError(
            f"The reports follow different protocols, so that their figures cannot be compared; they differ in "
            f"{', '.join(differing)}. Evaluate both models in the same way."
        )
    sets = {}
    for a, b in zip(first.sets, second.sets, strict=True):
        if a.verdicts.get("sample_id") != b.verdicts.get("sample_id") or not a.verdicts:
            raise ValueError(f"The reports hold no verdicts of the same images of {a.name!r}. Evaluate both anew.")
        figures = [key for key in a.verdicts if key in b.verdicts and key != "sample_id"]
        sets[a.name] = {key: paired_difference(a.verdicts[key], b.verdicts[key]) for key in figures}
    means = {}
    for figure in first.figures:
        parts = [sets[result.name] for result in first.of(figure).sets]
        prefix = "" if figure == "accuracy" else f"{figure} "
        shared = [key for key in parts[0] if all(key in part for part in parts)]
        means |= {prefix + key: _mean_difference([part[key] for part in parts]) for key in shared}
    return Comparison(sets, means)


def _under(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _mean_difference(pairs: list[PairedDifference]) -> tuple[float, float, float]:
    """Mean of independent sets' differences; their variances add up."""
    mean = sum(pair.difference for pair in pairs) / len(pairs)
    halves = [(pair.interval[1] - pair.interval[0]) / 2 / Z_95 for pair in pairs]
    half = Z_95 * math.sqrt(sum(half * half for half in halves)) / len(pairs)
    return mean, mean - half, mean + half
