"""`CertificateReport`: lower bounds of robust accuracy under normal noise, and what attacks leave beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from ..attacks.ball import parse_radius
from ..defences.certificate import Certificate
from .certificates import certified_accuracy
from .intervals import wilson_interval
from .stored import StoredReport
from .tables import Rows, percent, span


@dataclass
class CertifiedSet:
    """What is certified of the images of a set at one sigma.

    Attributes:
        name (`str`), num_classes (`int`): The set.
        sigma (`float` or `str`): Standard deviation of a pixel's noise, as it was passed.
        sample_ids (`list[int]`), labels (`list[int]`): Rows of the images, and their classes.
        clean (`list[int]`): 1 for each image that the bare model has right without noise, else 0.
        predictions (`list[int]`): Classes of the smoothed model, -1 where it abstains.
        radii (`list[float]`): Certified radii in L2; 0 of an abstention.
        empirical (`dict[str, list[int]]`): By radius, 1 for each image that the smoothed model has right after the
            attacks of that radius, else 0; under `"0"` without an attack. Empty if it was not attacked.

    Example:
        >>> food = CertifiedSet("food", 3, 0.25, [0, 1], [2, 0], [1, 1], predictions=[2, -1], radii=[0.4, 0.0])
        >>> food.certified_accuracy(0.3), food.certified_accuracy(0.5), food.abstained
        (0.5, 0.0, 0.5)
    """

    name: str
    num_classes: int
    sigma: float | str
    sample_ids: list[int]
    labels: list[int]
    clean: list[int]
    predictions: list[int]
    radii: list[float]
    empirical: dict[str, list[int]] = field(default_factory=dict)

    @property
    def certificates(self) -> list[Certificate]:
        """The certificate of each image."""
        return [Certificate(*pair) for pair in zip(self.predictions, self.radii, strict=True)]

    @property
    def clean_accuracy(self) -> float:
        """The share of images that the bare model has right without noise."""
        return sum(self.clean) / len(self.clean)

    @property
    def abstained(self) -> float:
        """The share of images on which the smoothed model abstains."""
        return sum(certificate.abstains for certificate in self.certificates) / len(self.radii)

    def certified_accuracy(self, radius: float | str) -> float:
        """The share of images whose class is right and certified at a radius or a larger one: the lower bound."""
        return certified_accuracy(self.certificates, self.labels, radius)

    def empirical_accuracy(self, radius: float | str) -> float:
        """The share of images that stand under the attacks of a radius: the upper bound."""
        stands = self.empirical[str(radius)]
        return sum(stands) / len(stands)

    def interval(self, accuracy: float) -> tuple[float, float]:
        """Wilson's 95 % interval of a share of the images."""
        return wilson_interval(accuracy, len(self.labels))

    def fooled_inside(self, radius: float | str) -> list[int]:
        """Rows of images that are right and certified at a radius, and that the attacks of it fool all the same.

        A certificate may not hold with a probability of alpha, and a verdict by few draws may err.
        """
        held = [
            certificate.holds(label, parse_radius(radius, "l2"))
            for certificate, label in zip(self.certificates, self.labels, strict=True)
        ]
        stands = self.empirical[str(radius)]
        return [row for row, holds, stays in zip(self.sample_ids, held, stands, strict=True) if holds and not stays]


@dataclass
class CertificateReport(StoredReport):
    """What [`certify_sets`] found, with the protocol that it followed.

    Attributes:
        protocol (`dict`): Everything that the figures depend on but the model: sigmas, draws, alpha, attacks, sets.
        sets (list of `CertifiedSet`): One for each set and sigma.
        model (`dict`): Fingerprint of the weights, logit scale and pixel statistics.
        provenance (`dict`): Where model and sets were read from; no part of the protocol.

    Example:
        >>> food = CertifiedSet("food", 3, 0.25, [0, 1], [2, 0], [1, 1], predictions=[2, -1], radii=[0.4, 0.0])
        >>> report = CertificateReport({"radii": [0, 0.3], "draws": 1000, "selection": 100, "alpha": 0.001}, [food])
        >>> report.save("certificates.json")
        >>> CertificateReport.load("certificates.json").rows()[1]
        ['food', '0.25', '2', '100.0', '50.0', '50.0', '50.0']
    """

    KIND: ClassVar[str] = "report of certificates"
    FILE: ClassVar[str] = "certificates.json"
    AGAIN: ClassVar[str] = "Certify again"

    protocol: dict[str, Any]
    sets: list[CertifiedSet]
    model: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def radii(self) -> list[float | str]:
        """The radii of the tables, as they were passed."""
        return self.protocol["radii"]

    @property
    def statement(self) -> list[str]:
        """What the figures say, and what they do not, in words."""
        protocol = self.protocol
        lines = [
            f"Certified: no change of the pixels up to that radius in L2 makes another class the most frequent under "
            f"normal noise. Each image's certificate holds with a confidence of {100 * (1 - protocol['alpha']):g} %, "
            f"not all of them together; {protocol['draws']:,} draws bound the class that {protocol['selection']} "
            "others picked. Abstaining is wrong. It says nothing of L-inf."
        ]
        if "empirical" in protocol:
            attacked = protocol["empirical"]
            lines.append(
                f"At most: what {', '.join(attacked['names'])} in L2 leaves standing of the same smoothed model, by "
                f"the most frequent class of {attacked['draws']} other draws."
            )
        return lines

    @property
    def warnings(self) -> list[str]:
        """Where a certificate and an attack contradict each other."""
        lines = []
        for each in self.sets:
            for radius in each.empirical:
                rows = each.fooled_inside(radius)
                if rows:
                    lines.append(
                        f"{each.name}, sigma {each.sigma}: {len(rows)} certified images are fooled inside the radius "
                        f"{radius}, such as row {rows[0]}. Judge by more draws before you believe either"
                    )
        return lines

    # ---- As tables ----

    def rows(self) -> Rows:
        """A row for each set and sigma: clean accuracy of the bare model, abstentions, and the certified accuracy at
        each radius; at 0 it is that of the smoothed model, where it does not abstain."""
        radii = [f"certified {radius}" for radius in self.radii]
        rows = [["set", "sigma", "images", "clean", "abstain", *radii]]
        for each in self.sets:
            row = [each.name, str(each.sigma), str(len(each.labels)), percent(each.clean_accuracy)]
            row.append(percent(each.abstained))
            rows.append(row + [percent(each.certified_accuracy(radius)) for radius in self.radii])
        return rows

    def bound_rows(self) -> Rows:
        """A row for each set, sigma and radius: what is certified, and what the attacks leave standing if there were
        any, with 95 % intervals over images."""
        is_attacked = any(each.empirical for each in self.sets)
        rows = [["set", "sigma", "radius", "at least", "95 %", *(["at most", "95 %"] if is_attacked else [])]]
        for each in self.sets:
            for radius in self.radii:
                accuracies = [each.certified_accuracy(radius)]
                if is_attacked:
                    accuracies.append(each.empirical_accuracy(radius))
                row = [each.name, str(each.sigma), str(radius)]
                for accuracy in accuracies:
                    row += [percent(accuracy), span(*each.interval(accuracy))]
                rows.append(row)
        return rows

    # ---- On disk ----

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        sets = []
        for each in self.sets:
            certified = {str(radius): each.certified_accuracy(radius) for radius in self.radii}
            sets.append({**asdict(each), "clean_accuracy": each.clean_accuracy, "certified_accuracy": certified})
        return {
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "model": self.model,
            **({"provenance": self.provenance} if self.provenance else {}),
            "sets": sets,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CertificateReport:
        """The report that `to_dict` gave."""
        derived = ("clean_accuracy", "certified_accuracy")
        sets = [CertifiedSet(**{k: v for k, v in entry.items() if k not in derived}) for entry in data["sets"]]
        return cls(data["protocol"], sets, data["model"], data.get("provenance", {}))


def names_of(sets: Sequence[CertifiedSet]) -> list[str]:
    """The names of sets, each once.

    Example:
        >>> names_of([CertifiedSet("food", 3, sigma, [0], [0], [1], [0], [0.1]) for sigma in (0.1, 0.2)])
        ['food']
    """
    return list(dict.fromkeys(each.name for each in sets))
