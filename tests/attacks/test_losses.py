"""Losses that an attack maximises, against their equations."""

import pytest
import torch
from support.attacked import linear

from hf_pmgaft.attacks import LOSSES, correct, pgd
from hf_pmgaft.attacks.losses import cross_entropy, dlr, margin, targeted_dlr


def test_losses_are_the_published_ones():
    logits, labels = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 5.0, 1.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(margin(logits, labels), torch.tensor([-2.0, 3.0]))
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2.0 / 2.5, 3.0 / 4.0]))
    got = targeted_dlr(logits, torch.tensor([1, 0]), labels)
    torch.testing.assert_close(got, torch.tensor([-2.0 / (3 - (0.5 - 1) / 2), -2.0 / (5 - (1 + 0) / 2)]))
    expected = -torch.log_softmax(logits, 1)[[0, 1], labels]
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_dlr_needs_three_classes_and_targeted_four():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    for classes, targeted in ((2, False), (3, True)):
        classifier = linear(torch.randn(classes, 4), torch.zeros(classes))
        with pytest.raises(ValueError, match=f"there are {classes} classes.*margin"):
            pgd(classifier, images, labels, eps=0.1, loss="dlr", targeted=targeted)


def test_an_image_with_several_labels_is_correct_by_any_of_them():
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]])
    labels = torch.tensor([[0, 2], [0, 2]])
    assert correct(logits, labels).tolist() == [True, False]
    torch.testing.assert_close(margin(logits, labels), torch.tensor([-2.0, 1.0]))
    probability = logits.softmax(1).gather(1, labels).sum(1)
    torch.testing.assert_close(cross_entropy(logits, labels), -probability.log())


def test_an_image_whose_label_shares_the_first_place_is_not_correct():
    assert correct(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0])).tolist() == [False]


def test_losses_and_verdicts_of_several_right_answers():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 9), torch.randint(9, (40,))
    several = torch.stack([labels, (labels + 3) % 9, labels], dim=1)
    one = labels.unsqueeze(1).expand(-1, 2)
    for loss in ("ce", "margin"):
        torch.testing.assert_close(LOSSES[loss](logits, one), LOSSES[loss](logits, labels))
    probabilities = logits.softmax(1).gather(1, several[:, :2]).sum(1)
    torch.testing.assert_close(LOSSES["ce"](logits, several), -probabilities.log())
    right = [row.argmax().item() in own for row, own in zip(logits, several.tolist(), strict=True)]
    assert correct(logits, several).tolist() == right == (LOSSES["margin"](logits, several) < 0).tolist()
    assert 0 < sum(right) < 40 and correct(logits, one).tolist() == correct(logits, labels).tolist()
