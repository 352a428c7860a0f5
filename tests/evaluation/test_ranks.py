"""Ranks: ties and NaN, blocks, and which rank is the worse one."""

import pytest
import torch
import torch.nn.functional as F
from support.emoji import make_data

from hf_pmgaft.evaluation import ranks
from hf_pmgaft.evaluation.gallery import Gallery
from hf_pmgaft.evaluation.ranks import Goal, own_ranks, target_ranks, text_to_image_ranks


def test_ties_count_against_the_model_and_nan_too():
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2], [0.1, torch.nan, 0.3, 0.2]])
    assert own_ranks(similarity, torch.tensor([[0, 3], [1, 1], [2, 2]])).tolist() == [3, 4, 2]
    assert own_ranks(similarity, torch.tensor([[1, 0], [0, 1], [1, 2]])).tolist() == [1, 3, 5]
    assert target_ranks(similarity, torch.tensor([0, 3, 1])).tolist() == [2, 1, 1]


def test_blocks_are_no_more_than_blocks(monkeypatch):
    torch.manual_seed(0)
    texts, images = (F.normalize(torch.randn(n, 4), dim=-1) for n in (50, 13))
    own = [[i % 13, *range(i % 5)] for i in range(50)]
    whole = text_to_image_ranks(texts, images, own)
    assert len(set(whole.tolist())) > 3
    for block in (1, 40, 13 * 50):
        monkeypatch.setattr(ranks, "SIMILARITIES_AT_ONCE", block)
        assert torch.equal(text_to_image_ranks(texts, images, own), whole)


@pytest.mark.parametrize("target", [None, "drawn"])
def test_the_worse_rank_is_the_one_that_is_wrong_sooner(emoji, target):
    goal = Goal.of(Gallery(make_data(emoji[1], target=target), range(24), seed=0))
    low, high = torch.tensor([3]), torch.tensor([7])
    worse = goal.worse(low, high)
    assert goal.is_pull == (target is not None) and worse == (low if goal.is_pull else high)
    assert not goal.is_right(worse, 5) and goal.is_right(low + high - worse, 5)
    assert goal.is_first(goal.best)
