"""`RobustnessReport`: the figures of an evaluation, and the protocol that it followed."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from ..attacks.spec import AttackSpec
from .defence_notes import defence_notes
from .figure import Figure, plain_key
from .figure_checks import check_figures
from .outcomes import interval, ious
from .stored import StoredReport
from .tables import Rows, percent, render, span
from .verdicts import VERDICTS
from .written import written_rows

OPTIONAL = ("class_names", "draws", "written")  # entries of a set that are left out where there are none

if TYPE_CHECKING:
    from .examples import Example


@dataclass
class SetResult:
    """Figures of one set, or one recall of it. All are fractions, whatever `figure` says that they are.

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
            Of segmentation they count pixels, see `hf_pmgaft.evaluation.outcomes`, also by threat.
        figure (`Figure`): What is right: the predicted class, one of the first k texts of an image or images of a
            text, that a target is not among the first k, or pixels. The constructor takes its title too, such as
            `"I2T R@5"`.
        class_names (`list[str]`, *optional*): Of a mean IoU, of which `class_ious` tells each class.
        draws (`dict[str, dict[str, float]]`, *optional*): Under a random defence, `clean`, `robust` and by attack: the
            mean share of right draws (`mean_share`), the share of images that every draw has right (`every_draw`), and
            the figure by the first half of the draws (`first_half`). Of smoothing also the share of images on which it
            abstains (`abstained`).
        written (`dict[str, dict[str, float]]`, *optional*): By typographic attack, on how many `images` it wrote:
            those that were right before, or all by the verdict of last iterates. The share of these that is taken for
            the class whose name, or in whose place random letters, stand there (`read`), and the mean share of their
            pixels that the text covers (`covered`). Under a random defence it is not told.

    Example:
        >>> result = SetResult("food", 10, num_samples=150, clean_accuracy=0.74, robust_accuracy=0.43, attacks={})
        >>> result.figure.title, round(result.robust_interval[0], 3)
        ('accuracy', 0.353)
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
    figure: Figure = field(default_factory=Figure)
    class_names: list[str] | None = None
    draws: dict[str, dict[str, float]] | None = None
    written: dict[str, dict[str, float]] | None = None

    def __post_init__(self):
        self.figure = Figure.of(self.figure)

    @classmethod
    def stored(cls, entry: Mapping[str, Any]) -> SetResult:
        """The result of an entry that [`SetResult.to_dict`] made, of whatever version."""
        names = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in entry.items() if key in names})

    @property
    def dataset(self) -> str:
        """Name of the set, without the figure that the name of other rows than accuracies ends with."""
        return self.name if self.figure.is_accuracy else self.name.removesuffix(f" {self.figure.title}")

    @property
    def kind(self) -> str:
        """`"accuracy"`, `"recall"`, `"mIoU"`, ...: only figures of one kind have a mean."""
        return self.figure.kind

    @property
    def robust_interval(self) -> tuple[float, float]:
        """95 % interval of the robust figure."""
        return self.interval("robust")

    def value(self, key: str) -> float:
        """The figure of `"clean"`, `"robust"`, an attack or a threat."""
        return {"clean": self.clean_accuracy, "robust": self.robust_accuracy, **self.attacks, **self.threats}[key]

    def interval(self, key: str) -> tuple[float, float]:
        """Its 95 % interval: Wilson's of a share of images, the bootstrap's over images of what is pooled."""
        return interval(self.figure, self.value(key), self.num_samples, self.verdicts.get(key, []))

    def class_ious(self, key: str) -> dict[str, float]:
        """The IoU of each class that is in some mask or prediction: `"clean"`, `"robust"`, of an attack or a threat.

        Example:
            >>> outcomes = {"clean": [[[0, 10, 20], [1, 20, 40]]]}
            >>> names = ["cat", "hat"]
            >>> result = SetResult("scenes mIoU", 2, 1, 0.5, 0, {}, outcomes, figure="mIoU", class_names=names)
            >>> result.class_ious("clean")
            {'cat': 0.5, 'hat': 0.5}
        """
        return {self.class_names[number]: value for number, value in ious(self.verdicts[key]).items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        entry = {**asdict(self), "figure": self.figure.title, "robust_interval_95": self.robust_interval}
        return {key: value for key, value in entry.items() if value is not None or key not in OPTIONAL}


@dataclass
class RobustnessReport(StoredReport):
    """The figures that `evaluate_robustness` measured, with the protocol that it followed.

    Attributes:
        protocol (`dict`): Everything that the figures depend on but the model.
        sets (list of `SetResult`): In the order of evaluation.
        model (`dict`): Fingerprint of the weights, logit scale and pixel statistics.
        flags (list of `dict`): Signs that a figure should not be believed yet: each with `flag`, `set` and `message`.
        provenance (`dict`): Where model and sets were read from, with their commits; the suite, and in `missing` the
            sets of it that could not be evaluated, with the reason. It is no part of the protocol.
        picture (`bytes`, *optional*): A PNG of sample images that a notebook shows below the table. Whoever has one
            sets it; it is no part of the report, which is compared and saved without it.
        examples (list of `Example`): A few images as attacks left them, if the evaluation was asked for some. Neither
            are they a part of the report.

    Example:
        >>> sets = [SetResult("food", 10, 150, 0.74, 0.43, {}), SetResult("pets", 37, 150, 0.58, 0.3, {})]
        >>> report = RobustnessReport({"attacks": [], "headline": "linf 4/255"}, sets)
        >>> report.save("robustness.json")
        >>> RobustnessReport.load("robustness.json").mean_robust_accuracy
        0.365
    """

    KIND: ClassVar[str] = "robustness report"
    FILE: ClassVar[str] = "robustness.json"
    AGAIN: ClassVar[str] = "Evaluate again; a verdict file goes on where it was interrupted"

    protocol: dict[str, Any]
    sets: list[SetResult]
    model: dict[str, Any] = field(default_factory=dict)
    flags: list[dict[str, str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.picture: bytes | None = None
        self.examples: list[Example] = []

    # ---- Which protocol ----

    @property
    def attacks(self) -> list[AttackSpec]:
        """All attacks, as they were asked for."""
        return [AttackSpec.stored(entry) for entry in self.protocol["attacks"]]

    @property
    def headline_attacks(self) -> list[AttackSpec]:
        """The attacks whose worst case `robust_accuracy` is."""
        # Reports without a headline are of one threat alone.
        return [spec for spec in self.attacks if spec.threat == self.protocol.get("headline", spec.threat)]

    @property
    def measure(self) -> str:
        """The figures in words: accuracy by class names or by a head, recall, mean IoU, or several of them."""
        head = self.protocol.get("head")
        accuracy = "zero-shot accuracy" if head is None else f"accuracy by {head['name']}"
        kinds = dict.fromkeys(result.kind for result in self.sets) or ["accuracy"]
        names = {"accuracy": accuracy, "mIoU": "mean IoU"}
        text = " and ".join(names.get(kind, kind) for kind in kinds)
        return text[0].upper() + text[1:]

    @property
    def verdict(self) -> str:
        """What counts as fooled, in words, and in what the attacks took their gradients where that is not float32."""
        text = self.protocol["verdict"]
        precision = self.protocol.get("attack_precision")
        return text if precision is None else f"{text}; gradients of the attacks in {precision}"

    @property
    def defence(self) -> list[str]:
        """How a defence at test time was measured, a line each; none without one."""
        return defence_notes(self.protocol.get("defence"), self.attacks)

    @property
    def transfer(self) -> list[str]:
        """How images were made on other models, a line for each of these."""
        return [
            f"Images from {name} are made on that model alone, with its own texts, statistics and resolution "
            f"({entry['image_size']} pixels), by attacks to their ends, and judged there by the model under test."
            for name, entry in self.protocol.get("sources", {}).items()
        ]

    @property
    def retrieval(self) -> list[str]:
        """The threats and ties of retrieval, a line each; none if nothing was ranked."""
        sets = [entry["retrieval"] for entry in self.protocol.get("sets", {}).values() if "retrieval" in entry]
        threats = [f"{name}: {text}." for entry in sets for name, text in entry["threats"].items()]
        ties = [f"Ties: {entry['ties']}." for entry in sets]
        return list(dict.fromkeys([*threats, *ties]))

    @property
    def segmentation(self) -> list[str]:
        """How pixels are compared with names, a line per set; none if nothing was segmented."""
        lines = []
        for name, entry in self.protocol.get("sets", {}).items():
            if "segmentation" in entry:
                way = entry["segmentation"]
                lines.append(
                    f"{name}: pixels by the readout {way['readout']}, scale {way['scale']:g}, in windows of "
                    f"{way['window']} pixels every {way['window_stride']}."
                )
        if lines and self.protocol["verdict"] == VERDICTS["any_iterate"]:
            lines.append("Of a segmented image that point counts at which the fewest of its pixels are right.")
        return lines

    # ---- Which figures ----

    @property
    def figures(self) -> list[Figure]:
        """The figures of the rows, each once: accuracy, recalls, ..."""
        return list(dict.fromkeys(result.figure for result in self.sets))

    def of(self, figure: Figure | str | None = None) -> RobustnessReport:
        """The report with the rows of one figure alone; if none is named, with those that means are over: all that
        are of the first one's kind."""
        if figure is None:
            rows = [result for result in self.sets if result.kind == self.sets[0].kind]
        else:
            rows = [result for result in self.sets if result.figure == Figure.of(figure)]
        return replace(self, sets=rows)

    @property
    def mean_clean_accuracy(self) -> float:
        """Mean over sets, each counting the same; of recalls, over all of them. See `of`."""
        return self.mean("clean_accuracy")

    @property
    def mean_robust_accuracy(self) -> float:
        """Mean over sets of the worst case over the attacks of the headline threat."""
        return self.mean("robust_accuracy")

    def mean(self, key: str, leave_out: str | None = None) -> float:
        """Mean of a figure over the sets, without the one named `leave_out`; see `of`."""
        values = [getattr(result, key) for result in self.of().sets if result.name != leave_out]
        return sum(values) / len(values) if values else math.nan

    @property
    def mean_title(self) -> str:
        """The name of the mean over sets, which says so if some of the suite are missing."""
        missing = self.provenance.get("missing", {})
        count = len({result.name for result in self.sets})
        return f"mean of {count} of {count + len(missing)} sets" if missing else "mean of sets"

    def mean_threat(self, threat: str) -> float:
        """Mean over sets of a threat's worst case; see `of`."""
        sets = self.of().sets
        return sum(result.threats[threat] for result in sets) / len(sets)

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Flat figures for logs: `eval_<set>_clean_accuracy`, ..., and the means over sets. Of recalls, without what
        trackers refuse: `eval_<set>_I2T_R1_clean_recall`, ..."""
        flat = {}
        for result in self.sets:
            # Accuracies go by the set's name to the letter, which `metric_for_best_model` may hold.
            name = result.name if result.figure.is_accuracy else plain_key(result.name)
            flat[f"{prefix}_{name}_clean_{result.figure.kind_key}"] = result.clean_accuracy
            flat[f"{prefix}_{name}_robust_{result.figure.kind_key}"] = result.robust_accuracy
        flat[f"{prefix}_mean_clean_accuracy"] = self.mean_clean_accuracy
        flat[f"{prefix}_mean_robust_accuracy"] = self.mean_robust_accuracy
        return flat

    # ---- As tables ----

    def rows(self) -> Rows:
        """A row per set: classes, images, clean accuracy, the headline with its 95 % interval, then other radii.

        Of segmentation two rows, of retrieval one per recall, with candidates and queries in place of classes and
        images; then means over sets.
        """
        threats = self._threats_in_table()
        has_8_bits = self.sets[0].robust_8bit_accuracy is not None
        counts_images = any(figure.counts_images for figure in self.figures)
        counted = ["classes", "images"] if counts_images else ["candidates", "queries"]
        eight_bits = ["8 bit"] if has_8_bits else []
        rows = [["set", *counted, "clean", f"robust {threats[0]}", "95 %", *eight_bits, *threats[1:]]]

        for result in self.sets:
            counts = [str(result.num_classes), str(result.num_samples)]
            headline, *others = (percent(result.threats[threat]) for threat in threats)
            eight_bits = [percent(result.robust_8bit_accuracy)] if has_8_bits else []
            cells = [percent(result.clean_accuracy), headline, span(*result.robust_interval), *eight_bits, *others]
            rows.append([result.name, *counts, *cells])

        for figure in self.figures:
            report = self.of(figure)
            if len(report.sets) == 1 and not figure.is_accuracy:
                continue
            name = self.mean_title if figure.is_accuracy else f"mean {figure.title}"
            headline, *others = (percent(report.mean_threat(threat)) for threat in threats)
            eight_bits = [percent(report.mean("robust_8bit_accuracy"))] if has_8_bits else []
            cells = [percent(report.mean_clean_accuracy), headline, "", *eight_bits, *others]
            rows.append([name, "", "", *cells])
        return rows

    def attack_rows(self) -> Rows:
        """A row per attack but corruptions, and figure of retrieval: the mean over the sets on which it ran of what
        stands after it.

        Of a defended model there is a row for the worst of all attackers of each threat, and of a random defence what
        its draws say: the mean share of right ones, and what stands if one wrong draw is enough; of smoothing, on how
        many images it abstains.
        """
        corruptions = {spec.name for spec in self._corruptions()}
        rows = [["attack", "sets", "standing", *(name.replace("_", " ") for name in self._of_draws)]]
        for figure in self.figures:
            sets = self.of(figure).sets
            names = dict.fromkeys(name for result in sets for name in result.attacks if name not in corruptions)
            for name in names:
                values = [result.attacks[name] for result in sets if name in result.attacks]
                title = name if figure.is_accuracy else f"{figure.title}: {name}"
                row = [title, str(len(values)), percent(sum(values) / len(values))]
                rows.append(row + self._draw_cells(name))
        return rows + self._worst_rows()

    def _worst_rows(self) -> Rows:
        """For each threat to a defended model the worst of its attackers."""
        rows = []
        threats = dict.fromkeys(spec.threat for spec in self.attacks if spec.attacker is not None)
        for threat in threats:
            row = [f"worst of all attackers, {threat}", str(len(self.sets)), percent(self.mean_threat(threat))]
            is_headline = threat == self.protocol["headline"]
            rows.append(row + (self._draw_cells("robust") if is_headline else [""] * len(self._of_draws)))
        return rows

    @property
    def _of_draws(self) -> list[str]:
        """What tables show of a random defence's draws."""
        drawn = [result.draws for result in self.sets if result.draws is not None]
        return [name for name in ("mean_share", "every_draw", "abstained") if drawn and name in drawn[0]["clean"]]

    def _draw_cells(self, key: str) -> list[str]:
        """What draws of a random defence say, mean over the sets."""
        drawn = [result.draws[key] for result in self.sets if result.draws is not None and key in result.draws]
        return [percent(sum(row[name] for row in drawn) / len(drawn)) for name in self._of_draws]

    def corruption_rows(self) -> Rows:
        """A row per kind of corruption: accuracy at each severity, means over sets. No rows if there is none."""
        specs = self._corruptions()
        if not specs:
            return []

        severities = sorted({spec.options["severity"] for spec in specs})
        rows = [["corruption", *(f"severity {severity}" for severity in severities)]]
        for kind in dict.fromkeys(spec.options["kind"] for spec in specs):
            threats = {spec.options["severity"]: spec.threat for spec in specs if spec.options["kind"] == kind}
            means = {severity: self.mean_threat(threat) for severity, threat in threats.items()}
            rows.append([kind, *(percent(means.get(severity)) for severity in severities)])
        return rows

    def written_rows(self) -> Rows:
        """A row per typographic attack: what stands, what is read, and the area covered. No rows if there is none."""
        return written_rows(self.sets)

    def class_rows(self) -> list[Rows]:
        """For each set that is segmented a table with a row per class: its IoU clean and under the headline."""
        tables = []
        for result in self.sets:
            if result.class_names is not None:
                clean, robust = (result.class_ious(key) for key in ("clean", "robust"))
                names = [name for name in result.class_names if name in clean or name in robust]
                title = f"IoU of {result.dataset}"
                rows = [[title, "clean", f"robust {self.protocol['headline']}"]]
                tables.append(rows + [[name, percent(clean.get(name)), percent(robust.get(name))] for name in names])
        return tables

    def _threats_in_table(self) -> list[str]:
        """The headline, and the other radii of its norm, also those from other models."""
        headline = self.protocol["headline"]
        norm = self.headline_attacks[0].norm
        if norm is None:
            return [headline]
        return list(dict.fromkeys([headline, *(spec.threat for spec in self.attacks if spec.norm == norm)]))

    def _corruptions(self) -> list[AttackSpec]:
        return [spec for spec in self.attacks if spec.attack == "corruption"]

    def _repr_html_(self) -> str:
        """The report in a notebook: attacks, the table, flags and the picture."""
        attacks = ", ".join(spec.name for spec in self.headline_attacks)
        lines = [f"<p>{self.measure} in %, robust under {escape(attacks)}; protocol {self.protocol_hash}</p>"]
        lines.append(render(self.rows(), "html"))
        lines += [f"<p>{escape(text)}</p>" for text in (*self.defence, *self.transfer)]
        for flag in self.flags:
            lines.append(f"<p>{escape('{flag} ({set}): {message}'.format(**flag))}</p>")
        if self.picture is not None:
            lines.append(f'<img alt="samples" src="data:image/png;base64,{b64encode(self.picture).decode()}">')
        return "\n".join(lines)

    # ---- On disk ----

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "model": self.model,
            "flags": self.flags,
            **({"provenance": self.provenance} if self.provenance else {}),
            "mean_clean_accuracy": self.mean_clean_accuracy,
            "mean_robust_accuracy": self.mean_robust_accuracy,
            "sets": [result.to_dict() for result in self.sets],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobustnessReport:
        """The report that `to_dict` gave, if its figures are shares of images, and those of its verdicts."""
        sets = [SetResult.stored(entry) for entry in data["sets"]]
        for result in sets:
            check_figures(result)
        return cls(data["protocol"], sets, data.get("model", {}), data.get("flags", []), data.get("provenance", {}))


def has_other_statistics(before: RobustnessReport, after: RobustnessReport) -> bool:
    """Whether two reports are of models that normalise images differently, as far as both say how."""
    keys = ("image_mean", "image_std")
    return any(before.model.get(key) != after.model.get(key) for key in keys if before.model and after.model)
