"""Losses of one or several right answers."""

import torch

from hf_pmgaft.attacks import LOSSES, correct


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
