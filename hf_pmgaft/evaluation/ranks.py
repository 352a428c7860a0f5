"""Ranks: how far down the gallery a query finds one of its own, or a target that it should keep out.

A query is right at k if one of its own is among the first k of the gallery; what ties with it stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .gallery import Gallery, filled_up

SIMILARITIES_AT_ONCE = 2**22  # in memory


def own_ranks(similarity: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Rank of the best of each query's own, from 1: `[Q,C]`, `[Q,P]` -> `[Q]`. Ties, and NaN, count against it."""
    best = similarity.gather(1, own).amax(1, keepdim=True)
    return 1 + (~(similarity.scatter(1, own, -torch.inf) < best)).sum(1)


def target_ranks(similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Rank of each query's target, from 1: `[Q,C]`, `[Q]` -> `[Q]`. Ties, and NaN, count for the target."""
    return 1 + (similarity > similarity.gather(1, targets.unsqueeze(1))).sum(1)


def text_to_image_ranks(texts: torch.Tensor, images: torch.Tensor, own: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rank of the best own image of each text, from 1, in blocks of texts, so that no whole `[M,N]` is in memory.

    Args:
        texts (`torch.Tensor`): `[M,D]`, unit norm.
        images (`torch.Tensor`): `[N,D]`, unit norm.
        own (list of list of `int`): By text the numbers of its images, at least one.

    Example:
        >>> directions = torch.eye(3)
        >>> text_to_image_ranks(directions, directions, own=[[0], [1, 2], [0]]).tolist()
        [1, 1, 3]
    """
    size = max(1, SIMILARITIES_AT_ONCE // len(images))
    ranks = []
    for start in range(0, len(texts), size):
        block = own[start : start + size]
        width = max(len(numbers) for numbers in block)
        numbers = torch.tensor(filled_up(block, width), device=texts.device)
        ranks.append(own_ranks(texts[start : start + size] @ images.T, numbers))
    return torch.cat(ranks).cpu()


def majority_rank(by_draw: torch.Tensor) -> torch.Tensor:
    """The rank that more than half of the draws of each query do not exceed, `[N,Q] -> [Q]`; of one draw its own.

    So a query is right at any k if more than half of its draws are. A tie is wrong.

    Example:
        >>> majority_rank(torch.tensor([[1, 3], [2, 9], [7, 3]])).tolist()
        [2, 3]
        >>> majority_rank(torch.tensor([[1], [6]])).tolist()
        [6]
    """
    return by_draw.sort(dim=0).values[len(by_draw) // 2]


@dataclass(frozen=True)
class Goal:
    """The aim of a query: to find its own, or to keep a target out; and which of two ranks is the worse one.

    Args:
        ranks (`Callable`): Similarities `[Q,C]` and labels -> ranks `[Q]`, from 1.
        worse (`Callable`): Of two tensors of ranks the worse ones.
        best (`int`): The best rank that there can be.
        is_pull (`bool`): Whether the attack pulls to a target, which right queries keep out of the first k.
    """

    ranks: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    worse: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    best: int
    is_pull: bool

    @classmethod
    def of(cls, gallery: Gallery) -> Goal:
        """To find one's own captions, or to keep a target out if the gallery has targets."""
        if gallery.targets:
            return cls(target_ranks, torch.minimum, best=gallery.num_candidates, is_pull=True)
        return cls(own_ranks, torch.maximum, best=1, is_pull=False)

    def is_right(self, ranks: Any, k: int) -> Any:
        """Tells whether a query of a rank is right at k; of a tensor of ranks, each."""
        return ranks > k if self.is_pull else ranks <= k

    def is_first(self, rank: int) -> bool:
        """Tells whether a query of a rank is right at 1."""
        return self.is_right(rank, 1)
