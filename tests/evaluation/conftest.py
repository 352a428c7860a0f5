"""A model that has learned its set, the model of the emoji, and the attacks that an evaluation runs."""

from typing import NamedTuple

import pytest
import torch
from support.emoji import make_emoji
from support.sets import make_data
from support.tiny import fit_model

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks.full_batches import FullBatches


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
    """Images that came to an attack together."""

    radius: float | None
    images: torch.Tensor
    seeds: torch.Tensor
    adversarial: torch.Tensor | None


@pytest.fixture
def attacked(monkeypatch) -> list[Attacked]:
    """All images that are attacked during a test, in their order; adversarial ones of whole batches alone."""
    calls, run, walk = [], AttackSpec.run, FullBatches.run

    def watched_run(spec, classifier, images, labels, seeds, **options):
        adversarial = run(spec, classifier, images, labels, seeds, **options)
        calls.append(Attacked(spec.radius if spec.norm else None, images, seeds, adversarial))
        return adversarial

    def watched_walk(batches, lots):
        def arriving():
            for lot in lots:
                calls.append(Attacked(batches.eps, lot.images, lot.seeds, None))
                yield lot

        # Those of an attack on one batch are seen above.
        return walk(batches, arriving() if batches.side_by_side else lots)

    monkeypatch.setattr(AttackSpec, "run", watched_run)
    monkeypatch.setattr(FullBatches, "run", watched_walk)
    return calls
