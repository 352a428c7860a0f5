"""Transfer: images are made on a source, which is another model, and the one under test judges them.

Nothing of the model under test is used in making them, not even to stop early (Papernot et al., arXiv 1605.07277).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..attacks.spec import AttackSpec
from ..tuning.saved import load_pair
from .bare_models import check_zero_shot, in_float32
from .defended import check_whole_images

if TYPE_CHECKING:
    from ..data.evaluation_sets import EvaluationImages

Pair = tuple[nn.Module, Any]


def check_transfer(
    attacks: Sequence[AttackSpec],
    sets: Sequence[EvaluationImages],
    given: Mapping[str, Pair] | None,
) -> None:
    """Raises `ValueError` for sets and models that attacks with a source cannot serve or do not name.

    Example:
        >>> attacks = [AttackSpec.parse("pgd,eps=4/255,source=robust")]
        >>> check_transfer(attacks, [], {"other": (None, None)})
        Traceback (most recent call last):
        ValueError: You passed sources ['other'], which no attack names. ...
    """
    from_sources = [spec for spec in attacks if spec.source is not None]
    idle = sorted(set(given or {}) - {spec.source for spec in from_sources})
    if idle:
        raise ValueError(
            f"You passed sources {idle}, which no attack names. Leave them out, or name them as in "
            f"'pgd,eps=4/255,source={idle[0]}'."
        )
    if not from_sources:
        return

    title = from_sources[0].name
    reason = "images are made on another model only where they are classified as a whole"
    check_whole_images(title, sets, reason, "source")
    _check_names_differ(from_sources)


def open_sources(
    attacks: Sequence[AttackSpec], given: Mapping[str, Pair] | None, device: torch.device
) -> dict[str, Pair]:
    """The models that attacks name as their sources, each with its processor, in float32, by what tables call them.

    Args:
        attacks (list of `AttackSpec`): Of which some may name none.
        given (`dict`, *optional*): Models that are in memory, by the name in the attack. Others are loaded, once each.
        device (`torch.device`): Where images are attacked.

    Raises:
        OSError, ValueError: if one cannot be opened, or is somewhere else.
        TypeError: if one has no text tower.

    Example:
        >>> model.save_pretrained("robust")
        >>> _ = processor.save_pretrained("robust")
        >>> attacks = [AttackSpec.parse("pgd,eps=4/255,source=robust"), AttackSpec.parse("pgd,eps=4/255")]
        >>> list(open_sources(attacks, None, torch.device("cpu")))
        ['robust']
    """
    named = {spec.source_name: spec.source for spec in attacks if spec.source is not None}
    return {title: _open(source, given or {}, device) for title, source in named.items()}


def _open(source: str, given: Mapping[str, Pair], device: torch.device) -> Pair:
    with _errors_of(source):
        model, processor = given[source] if source in given else load_pair(source)
        check_zero_shot(model, processor)

    place = next(model.parameters()).device
    if source not in given:
        model = model.to(device)
    elif place != device:
        raise ValueError(
            f"The source {source!r} is on {place}, and the model under test on {device}. Move one to the other."
        )
    return in_float32(model), processor


@contextlib.contextmanager
def _errors_of(source: str) -> Iterator[None]:
    """Says of errors which model they are about, since there is another one."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        kind = next(kind for kind in (OSError, TypeError, ValueError) if isinstance(error, kind))
        raise kind(f"The source {source!r} cannot make images: {error}") from error


def _check_names_differ(attacks: Sequence[AttackSpec]) -> None:
    """Raises `ValueError` for two models that tables would call the same."""
    known: dict[str, str] = {}
    for spec in attacks:
        other = known.setdefault(spec.source_name, spec.source)
        if other != spec.source:
            raise ValueError(
                f"You passed the sources {other!r} and {spec.source!r}, which tables would both call "
                f"{spec.source_name!r}. Name one of them by another path."
            )
