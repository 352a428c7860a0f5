"""How a defended model is measured: by whom it is attacked, over how many draws, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..attacks.options import takes_attacker
from ..attacks.spec import AttackSpec
from ..defences import DEFENCES, Defence, Smoothing
from ..defences.spec import DefenceSpec
from ..registry import check_count
from .draw_rules import Majority, Prediction, Rule

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.evaluation_sets import EvaluationImages

DEFAULT_EOT = 4  # as Croce et al. (ICML 2022, arXiv 2202.13711) attack
OF_DRAWS = (Majority.verdict, Prediction.verdict)  # verdicts that are given by draws


@dataclass(frozen=True)
class Defended:
    """A defence, and how much is drawn from a random one.

    Args:
        spec (`DefenceSpec`): The defence.
        eot (`int`, *optional*): Over how many draws a step of an attack is averaged; `None` if nothing is drawn.
        draws (`int`, *optional*): By how many draws a verdict is given; `None` if nothing is drawn.

    Example:
        >>> defended = Defended.of("random_noise,eps=8/255", draws=9)
        >>> defended.describe()
        {'defence': 'random_noise', 'eps': '8/255', 'draws': 9, 'eot': 4}
        >>> for spec in defended.rows([AttackSpec.parse("fgsm,eps=4/255")]):
        ...     print(spec.name)
        FGSM ce linf 4/255 (attacker=unaware)
        FGSM ce linf 4/255 (attacker=through, eot=4)
        FGSM ce linf 4/255 (attacker=straight_through, eot=4)
    """

    spec: DefenceSpec
    eot: int | None = None
    draws: int | None = None

    @classmethod
    def of(
        cls,
        defence: DefenceSpec | Mapping[str, Any] | str | None,
        options: Mapping[str, Any] | None = None,
        eot: int | None = None,
        draws: int | None = None,
    ) -> Defended | None:
        """What an evaluation was asked for; `None` without a defence.

        Raises:
            ValueError: for no such defence, and for numbers that have no effect or are none.
        """
        given = {"defence_kwargs": options, "eot": eot, "draws": draws}
        named = ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
        if defence is None:
            if named:
                raise ValueError(f"You passed {named} without a defence, where it has no effect. Pass both.")
            return None

        if options is not None:
            whole = {"defence": defence} if isinstance(defence, str) else DefenceSpec.of(defence).to_dict()
            defence = {**whole, **options}
        spec = DefenceSpec.of(defence)
        if spec.is_random:
            eot = check_count("eot", DEFAULT_EOT if eot is None else eot)
            rule = rule_of(spec)
            draws = check_count("draws", rule.default_draws if draws is None else draws)
            rule.check(draws)
            return cls(spec, eot, draws)
        if eot is not None or draws is not None:
            raise ValueError(
                f"You passed {named} with {spec.title}, which draws nothing: all of its draws are the same. Leave it "
                "out."
            )
        return cls(spec)

    @property
    def is_random(self) -> bool:
        """Whether the defence draws."""
        return self.spec.is_random

    @property
    def rule(self) -> Rule:
        """How draws make a verdict."""
        return rule_of(self.spec)

    def rows(self, attacks: Sequence[AttackSpec]) -> list[AttackSpec]:
        """The attacks by all attackers that differ on the defence, but those that name their own.

        What is made on another model is made without looking at this one, and stays as it is.
        """
        rows = []
        for spec in attacks:
            if spec.source is not None or not takes_attacker(spec.attack):
                rows.append(spec)
                continue
            eot = spec.options.get("eot", self.eot)
            attackers = self.spec.attackers if spec.attacker is None else (spec.attacker,)
            rows += [spec.by(attacker, None if attacker == "unaware" else eot) for attacker in attackers]
        return rows

    def describe(self) -> dict[str, Any]:
        """The defence in the protocol."""
        entry = self.spec.to_dict()
        return {**entry, "draws": self.draws, "eot": self.eot} if self.is_random else entry


def rule_of(spec: DefenceSpec) -> Rule:
    """How draws of a random defence make a verdict: of smoothing by its own prediction, else by their majority.

    Example:
        >>> rule_of(DefenceSpec.parse("smoothing,alpha=0.01")), rule_of(DefenceSpec.parse("ttc"))
        (Prediction(alpha=0.01), Majority())
    """
    if issubclass(DEFENCES[spec.name], Smoothing):
        return Prediction(spec.options["alpha"])
    return Majority()


def check_defended(
    defended: Defended | None,
    sets: Sequence[EvaluationImages],
    attacks: Sequence[AttackSpec],
    verdict: str,
    attack_precision: str,
    compile: str | None,
) -> None:
    """Raises `ValueError` for attacks, sets, verdicts and ways to compute that do not go with a defence, or with none.

    Example:
        >>> attacks = [AttackSpec.parse("fgsm,eps=4/255,attacker=through")]
        >>> check_defended(None, [], attacks, "any_iterate", "fp32", None)
        Traceback (most recent call last):
        ValueError: You passed FGSM ce linf 4/255 (attacker=through) without a defence that ...
    """
    if defended is None:
        named = [spec.name for spec in attacks if {"attacker", "eot"} & set(spec.options)]
        if named:
            raise ValueError(
                f"You passed {', '.join(named)} without a defence that an attacker could know of. Pass a defence, or "
                "leave attacker and eot out."
            )
        if verdict in OF_DRAWS:
            raise ValueError(
                f"You passed verdict={verdict!r} without a defence that draws at random: all draws are the same. Pass "
                "a random defence, or another verdict."
            )
        return

    title = defended.spec.title
    _check_sets(defended.spec, sets)
    _check_draws(defended, attacks, verdict)
    if attack_precision != "fp32" or compile is not None:
        given = f"compile={compile!r}" if attack_precision == "fp32" else f"attack_precision={attack_precision!r}"
        raise ValueError(
            f"You passed {given} with the defence {title}, which computes with the encoder itself, and would be "
            "another defence there. Leave it out."
        )


def _check_sets(spec: DefenceSpec, sets: Sequence[EvaluationImages]) -> None:
    """Raises `ValueError` for sets that a defence cannot serve: pixels, targets, and captions if it needs classes."""
    from ..data.evaluation_sets import RetrievalDataset

    captioned = [data for data in sets if isinstance(data, RetrievalDataset)]
    others = [data for data in sets if data not in captioned]
    check_whole_images(f"the defence {spec.title}", others, "defences here look at whole images", "defence")
    if captioned and DEFENCES[spec.name].needs_classes:
        fitting = sorted(name for name, cls in DEFENCES.items() if not cls.needs_classes)
        raise ValueError(
            f"You passed the defence {spec.title} with the set {captioned[0].name!r}, which retrieves captions, but "
            f"it needs the classes of an image. Pass one of {', '.join(fitting)}, or leave the set out."
        )
    targets = [data.name for data in captioned if data.target is not None]
    if targets:
        raise ValueError(
            f"You passed the defence {spec.title} with {targets[0]!r}, whose images are pulled to a target. Attacks "
            "on defences only push away from the right captions. Leave the target or the defence out."
        )


def check_whole_images(passed: str, sets: Sequence[EvaluationImages], reason: str, kind: str) -> None:
    """Raises `ValueError` for sets whose images are not classified as a whole, with which something cannot go.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> check_whole_images("the defence ttc", [food], "defences here look at whole images", "defence")
    """
    from ..data.evaluation_sets import RetrievalDataset
    from ..data.segmentation_sets import SegmentationDataset

    kinds = {SegmentationDataset: "segments pixels", RetrievalDataset: "retrieves captions"}
    for data in sets:
        for of_kind, does in kinds.items():
            if isinstance(data, of_kind):
                raise ValueError(
                    f"You passed {passed} with the set {data.name!r}, which {does}; {reason}. Leave the set or the "
                    f"{kind} out."
                )


def _check_draws(defended: Defended, attacks: Sequence[AttackSpec], verdict: str) -> None:
    """Raises `ValueError` for what does not go with draws, or with none."""
    title = defended.spec.title
    if defended.is_random:
        own = defended.rule.verdict
        if verdict in OF_DRAWS and verdict != own:
            raise ValueError(
                f"You passed verdict={verdict!r} with {title}, whose draws make a verdict by another rule. Leave it "
                f"out, for {own!r}."
            )
        if verdict != own:
            raise ValueError(
                f"You passed verdict={verdict!r} with {title}, which draws at random: a single draw would count its "
                f"luck, of which an attack has as many as it takes steps. Leave the verdict out, for {own!r}."
            )
        return
    if verdict in OF_DRAWS:
        raise ValueError(
            f"You passed verdict={verdict!r} with {title}, which draws nothing: all draws are the same. Leave it out."
        )
    with_eot = [spec.name for spec in attacks if "eot" in spec.options]
    if with_eot:
        raise ValueError(
            f"You passed {', '.join(with_eot)} with {title}, which draws nothing: all draws are the same. Leave eot "
            "out."
        )


def at_one_draw(defence: Defence) -> Callable[[torch.Tensor], torch.Tensor]:
    """A random defence with one draw that is the same for all images, so that it can be looked at as any other.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> bare = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> classifier = at_one_draw(DefenceSpec.parse("random_noise").wrap(bare))
        >>> torch.equal(classifier(images), classifier(images))
        True
    """
    return lambda images: defence(images, torch.zeros(len(images), dtype=torch.int64, device=images.device))
