"""Means for the logs, and whether every loss was finite."""

import pytest
import torch

from hf_pmgaft.training.running_means import RunningMeans


@pytest.fixture
def means() -> RunningMeans:
    return RunningMeans(torch.device("cpu"))


def test_batches_weigh_by_their_samples_and_are_forgotten(means):
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(10.0)}, count=6)
    means.add({"a": torch.tensor(4.0)}, count=2)
    assert "a" in means and "c" not in means
    assert means.pop() == {"a": (6 * 1 + 2 * 4) / 8, "b": 10.0}
    assert means.pop() == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_remembered_until_all_is_cleared(means, bad):
    means.note_finite([torch.tensor(1.0), torch.zeros(3)])
    assert means.all_finite()
    means.note_finite([torch.tensor([0.0, bad])])
    means.note_finite([torch.tensor(1.0)])
    means.pop()
    assert not means.all_finite()
    means.clear()
    assert means.all_finite()


def test_nothing_keeps_a_graph(means):
    value = torch.ones((), requires_grad=True)
    means.add({"a": value * 2}, count=1)
    means.note_finite([value * 2])
    assert not any(tensor.requires_grad for tensor in means.tensors())
