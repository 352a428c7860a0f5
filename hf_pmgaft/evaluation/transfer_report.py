"""`TransferReport`: the accuracy of each model on images that were made on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from ..attacks.spec import AttackSpec
from .intervals import interval_of_mean, wilson_interval
from .stored import StoredReport
from .tables import Rows, percent, span

CLEAN = "no attack"


@dataclass
class TransferSet:
    """Which model is right on which image of a set.

    Attributes:
        name (`str`), num_classes (`int`), sample_ids (`list[int]`): The set, and the rows of its images.
        clean (`dict[str, list[int]]`): By model, 1 for each image that it has right without an attack, else 0.
        right (`dict`): By threat, source and the model that judges, 1 for each image that this one has right clean and
            after all attacks of the threat on the source, else 0.

    Example:
        >>> right = {"linf 4/255": {"a": {"a": [0, 0], "b": [1, 0]}, "b": {"a": [1, 1], "b": [0, 1]}}}
        >>> food = TransferSet("food", 3, [0, 1], {"a": [1, 1], "b": [1, 1]}, right)
        >>> food.accuracy("linf 4/255", "a", "b")
        0.5
    """

    name: str
    num_classes: int
    sample_ids: list[int]
    clean: dict[str, list[int]]
    right: dict[str, dict[str, dict[str, list[int]]]]

    def accuracy(self, threat: str, source: str, target: str) -> float:
        """The share of images that `target` has right after all attacks of a threat on `source`."""
        return _mean(self.right[threat][source][target])

    def clean_accuracy(self, target: str) -> float:
        """The share of images that a model has right without an attack."""
        return _mean(self.clean[target])


@dataclass
class TransferReport(StoredReport):
    """What [`transfer_matrix`] found, with the protocol that it followed.

    Attributes:
        protocol (`dict`): Everything that the figures depend on but the models.
        sets (list of `TransferSet`): In the order of evaluation.
        models (`dict`): By name, the fingerprint, statistics and image size of each.
        provenance (`dict`): Where models and sets were read from; no part of the protocol.

    Example:
        >>> right = {"linf 4/255": {"a": {"a": [0, 0], "b": [1, 0]}, "b": {"a": [1, 1], "b": [0, 1]}}}
        >>> food = TransferSet("food", 3, [0, 1], {"a": [1, 1], "b": [1, 1]}, right)
        >>> report = TransferReport({"attacks": [{"attack": "fgsm", "eps": "4/255"}]}, [food], {"a": {}, "b": {}})
        >>> for row in report.rows():
        ...     print(row)
        ['linf 4/255 made on', 'a', 'b']
        ['no attack', '100.0 (34.2 to 100.0)', '100.0 (34.2 to 100.0)']
        ['a', '0.0 (0.0 to 65.8)', '50.0 (9.5 to 90.5)']
        ['b', '100.0 (34.2 to 100.0)', '50.0 (9.5 to 90.5)']
    """

    KIND: ClassVar[str] = "transfer report"
    FILE: ClassVar[str] = "transfer.json"
    AGAIN: ClassVar[str] = "Evaluate again"

    protocol: dict[str, Any]
    sets: list[TransferSet]
    models: dict[str, dict[str, Any]]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The models, as tables name them."""
        return list(self.models)

    @property
    def attacks(self) -> list[AttackSpec]:
        """All attacks, as they were asked for."""
        return [AttackSpec.stored(entry) for entry in self.protocol["attacks"]]

    @property
    def threats(self) -> list[str]:
        """What attackers may do, each once; there is a matrix for each."""
        return list(dict.fromkeys(spec.threat for spec in self.attacks))

    @property
    def statement(self) -> list[str]:
        """How images came about, in words."""
        attacks = ", ".join(spec.name for spec in self.attacks)
        return [
            "A row is the model that images are made on, by its own texts, statistics and resolution, and a column "
            f"the one that judges them: by {attacks}, to the end. Nothing of the judge is used but on the diagonal, "
            "the white-box attack to its end.",
            "Accuracies in %, means over sets, with 95 % intervals over images of these sets.",
        ]

    def accuracy(self, source: str, target: str, threat: str | None = None) -> float:
        """Mean over sets of what `target` has right of images made on `source`, of the first threat by default."""
        threat = threat or self.threats[0]
        return sum(each.accuracy(threat, source, target) for each in self.sets) / len(self.sets)

    def clean_accuracy(self, target: str) -> float:
        """Mean over sets of what a model has right without an attack."""
        return sum(each.clean_accuracy(target) for each in self.sets) / len(self.sets)

    def rows(self, threat: str | None = None) -> Rows:
        """The matrix of a threat: a row without an attack and one per source, a column per model that judges."""
        threat = threat or self.threats[0]
        rows = [[f"{threat} made on", *self.names]]
        rows.append([CLEAN, *(self._cell([each.clean[name] for each in self.sets]) for name in self.names)])
        for source in self.names:
            cells = [[each.right[threat][source][name] for each in self.sets] for name in self.names]
            rows.append([source, *map(self._cell, cells)])
        return rows

    def _cell(self, right: list[list[int]]) -> str:
        """The mean over sets of who is right on their images, with its interval."""
        values = [_mean(of_set) for of_set in right]
        intervals = [wilson_interval(value, len(of_set)) for value, of_set in zip(values, right, strict=True)]
        spans = [(value, *ends) for value, ends in zip(values, intervals, strict=True)]
        return f"{percent(sum(values) / len(values))} ({span(*interval_of_mean(spans))})"

    # ---- On disk ----

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has, and the means over sets."""
        means = {
            threat: {
                source: {target: self.accuracy(source, target, threat) for target in self.names}
                for source in self.names
            }
            for threat in self.threats
        }
        return {
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "models": self.models,
            **({"provenance": self.provenance} if self.provenance else {}),
            "mean_clean_accuracy": {target: self.clean_accuracy(target) for target in self.names},
            "mean_accuracy": means,
            "sets": [asdict(each) for each in self.sets],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TransferReport:
        """The report that `to_dict` gave."""
        sets = [TransferSet(**entry) for entry in data["sets"]]
        return cls(data["protocol"], sets, data["models"], data.get("provenance", {}))


def _mean(right: list[int]) -> float:
    return sum(right) / len(right)
