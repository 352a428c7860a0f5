"""APT: the loss of TeCoA with learned prompts for class texts."""

from __future__ import annotations

from dataclasses import dataclass

from .tecoa import TeCoA


@dataclass
class APT(TeCoA):
    """APT: adversarial prompt tuning (Li et al., CVPR 2024, arXiv 2403.01849).

    Equation: `CE(l(x'), y)`, mean over the batch, as in TeCoA, but the class texts are the live prompts, in training
    and in the attack.

    Requirements: labels, live prompts. Trained: the text context alone, 16 vectors before the class name, shared or
    per class, drawn from `N(0, 0.02^2)`. Authors' settings: few-shot, a TeCoA backbone of the same eps, eps 4/255, 3
    steps of 2/3 eps, SGD 2e-3 after one epoch at 1e-5, batch 32, 50 epochs, random crops and flips.

    Example:
        >>> APT().weights
        {'adversarial_ce': 1.0}
    """
