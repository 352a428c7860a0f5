"""`Plan`: the rows of a set that are evaluated, and the attacks on it in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..attacks.dense_checks import check_dense, check_whole
from ..attacks.lettering import check_writable
from ..attacks.passes import Passes, most_passes
from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import EvaluationImages, RetrievalDataset, ZeroShotDataset
from ..data.segmentation_sets import SegmentationDataset
from ..registry import check_count
from .gallery import Gallery
from .trained_on import check_apart


@dataclass(frozen=True)
class Plan:
    """One set, its rows to evaluate, and the attacks on it in order.

    Args:
        data (`ZeroShotDataset`, `RetrievalDataset` or `SegmentationDataset`): The set.
        rows (`list[int]`): Rows of the images that are judged.
        attacks (list of `AttackSpec`): Smaller radii of a norm first.
        gallery (`Gallery`, *optional*): What a retrieval set ranks; `None` of a set that is classified.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> plan = Plan.of(food, [AttackSpec.parse("pgd,eps=4/255"), AttackSpec.parse("pgd,eps=2/255")], max_samples=3)
        >>> plan.rows, plan.names
        ([9, 10, 12], ['PGD-10 ce linf 2/255', 'PGD-10 ce linf 4/255'])
    """

    data: EvaluationImages
    rows: list[int]
    attacks: list[AttackSpec]
    gallery: Gallery | None = None

    @classmethod
    def of(
        cls, data: EvaluationImages, attacks: Sequence[AttackSpec], max_samples: int | None = None, seed: int = 0
    ) -> Plan:
        """The plan of a set: `max_samples` of its rows chosen by the seed, and what the attacks stand for on it.

        Raises:
            ValueError: for a gallery that cannot be ranked, an attack that cannot handle so few classes, and one on
                pixels where images are classified as a whole, or the other way round.
        """
        check = check_dense if isinstance(data, SegmentationDataset) else check_whole
        for spec in attacks:
            check(spec)
        rows = _rows(data, max_samples, seed)
        if isinstance(data, RetrievalDataset):
            gallery = Gallery(data, rows, seed)
            return cls(data, gallery.rows, _in_order(attacks, gallery.num_candidates), gallery)
        for spec in attacks:
            _check_writable(spec, data)
            check_apart(spec, data, rows)
        return cls(data, rows, _in_order(attacks, len(data.class_names)))

    @property
    def is_segmented(self) -> bool:
        """Whether every pixel has a class."""
        return isinstance(self.data, SegmentationDataset)

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.data.name

    @property
    def names(self) -> list[str]:
        """The names of the attacks."""
        return [spec.name for spec in self.attacks]

    @property
    def labelled(self) -> ZeroShotDataset | Gallery:
        """The set or the gallery: it gives images with their labels by row."""
        return self.data if self.gallery is None else self.gallery

    @property
    def texts(self) -> list[str]:
        """Class names, or captions, among which the right one is to be found."""
        return self.data.class_names if self.gallery is None else self.gallery.captions

    def most_passes(self, eight_bit: bool = False, draws: int = 1) -> Passes:
        """The passes that an image takes at most: one without an attack, and those of each attack with its verdict.

        Args:
            eight_bit (`bool`): Whether there are verdicts on rounded images, too.
            draws (`int`): Passes of a verdict.
        """
        num_candidates = len(self.texts)
        passes = [most_passes(spec, num_candidates) for spec in self.attacks]
        verdicts = len(self.attacks) * (2 if eight_bit else 1)
        forward = draws * (1 + verdicts) + sum(each.forward for each in passes)
        return Passes(forward, sum(each.backward for each in passes))

    def leading_to(self, headline: str) -> list[str]:
        """Names of the attacks whose worst case is that of the headline threat: its own, and smaller radii of its
        norm, made on the same model."""
        last = max(place for place, spec in enumerate(self.attacks) if spec.threat == headline)
        balls = _balls_of(self.attacks[last])
        return [spec.name for spec in self.attacks[: last + 1] if _balls_of(spec) == balls]


def describe_work(plans: Sequence[Plan], eight_bit: bool = False, draws: int = 1) -> str:
    """Says how much an evaluation computes, before it does. Probes of a few images of each set come on top.

    Args:
        draws (`int`): Passes of a verdict. With a defence, a pass is one through the defence.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> describe_work([Plan.of(food, [AttackSpec.parse("pgd,eps=4/255,num_steps=50")])])
        '16 images in 1 set, under 1 attack: at most 54 forward and 50 backward passes an image'
    """
    images = sum(len(plan.rows) for plan in plans)
    attacks = max(len(plan.attacks) for plan in plans)
    passes = [plan.most_passes(eight_bit, draws) for plan in plans]
    forward = max(each.forward for each in passes)
    backward = max(each.backward for each in passes)
    return (
        f"{images:,} images in {_counted(len(plans), 'set')}, under {_counted(attacks, 'attack')}: at most "
        f"{forward:,} forward and {backward:,} backward passes an image"
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def group_of(spec: AttackSpec) -> str:
    """Attacks of one group go on from what the ones before left: those of one norm, or else of one threat, of one
    source, and of one attacker where there is a defence."""
    return _balls_of(spec) if spec.attacker is None else f"{_balls_of(spec)} {spec.attacker}"


def _balls_of(spec: AttackSpec) -> str:
    if spec.norm is None:
        return spec.threat
    return spec.norm if spec.source is None else f"{spec.norm} from {spec.source_name}"


def sample_ids(size: int, max_samples: int | None, seed: int) -> list[int]:
    """Chooses the rows of a set that are evaluated: all, or `max_samples` of them, by the seed.

    Raises:
        ValueError: for a `max_samples` below 1.

    Example:
        >>> sample_ids(100, 4, seed=0) == sample_ids(100, 4, seed=0), sample_ids(3, None, seed=0)
        (True, [0, 1, 2])
    """
    if max_samples is None or check_count("max_samples", max_samples) >= size:
        return list(range(size))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(size, generator=generator)[:max_samples].tolist())


def _rows(data: EvaluationImages, max_samples: int | None, seed: int) -> list[int]:
    rows = list(range(len(data))) if data.sample_ids is None else list(data.sample_ids)
    return [rows[i] for i in sample_ids(len(rows), max_samples, seed)]


def _check_writable(spec: AttackSpec, data: EvaluationImages) -> None:
    """Raises `ValueError` for a set with class names that an attack writes on its images and cannot."""
    if spec.attack != "typographic":
        return
    try:
        check_writable(data.class_names, data.shape[-2:], spec.options["height"], spec.options["font"])
    except ValueError as error:
        raise ValueError(f"{spec.name} on the set {data.name!r}: {error}") from error


def _in_order(attacks: Sequence[AttackSpec], num_candidates: int) -> list[AttackSpec]:
    """The single attacks that these stand for among so many candidates, each once: smaller radii of a norm first, else
    as they were passed."""
    specs = {part.name: part for spec in attacks for part in spec.expand(num_candidates)}
    norms = [spec.norm for spec in specs.values()]

    def place(spec: AttackSpec) -> tuple[int, float]:
        return norms.index(spec.norm), spec.radius if spec.norm else 0.0

    return sorted(specs.values(), key=place)
