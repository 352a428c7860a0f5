"""A model that has learned its set, the model of the emoji, and the attacks that an evaluation runs."""

from typing import NamedTuple

import pytest
import torch
from support.emoji import make_emoji
from support.sets import make_data
from support.tiny import fit_model

from hf_pmgaft import AttackSpec


@pytest.fixture(scope="session")
def fitted():
    return fit_model()


@pytest.fixture(scope="session")
def data(fitted):
    return make_data(fitted[1])


@pytest.fixture(scope="session")
def emoji():
    return make_emoji()


class Attacked(NamedTuple):
    """One attack on one batch, as it was run."""

    spec: AttackSpec
    images: torch.Tensor
    seeds: torch.Tensor
    adversarial: torch.Tensor


@pytest.fixture
def attacked(monkeypatch) -> list[Attacked]:
    """All attacks on batches that are run during a test, in their order."""
    calls, run = [], AttackSpec.run

    def watched(spec, classifier, images, labels, seeds, **options):
        adversarial = run(spec, classifier, images, labels, seeds, **options)
        calls.append(Attacked(spec, images, seeds, adversarial))
        return adversarial

    monkeypatch.setattr(AttackSpec, "run", watched)
    return calls
