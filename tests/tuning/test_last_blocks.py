"""The last blocks of the vision tower are trained."""

import pytest
from support.tuned import trained

from hf_pmgaft.tuning import LastBlocks


@pytest.mark.parametrize("blocks", [1, 2])
def test_last_blocks_are_trained_with_the_norm_and_projection_after_them(model, blocks):
    names = trained(LastBlocks(blocks).prepare(model))
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(tuple(f"vision_model.encoder.layers.{2 - i}." for i in range(1, blocks + 1)))
        or name.startswith(("vision_model.post_layernorm.", "visual_projection."))
    }
    assert names == expected and len(expected) == 16 * blocks + 3


def test_more_blocks_than_there_are_is_refused(model):
    with pytest.raises(ValueError, match="blocks=3, but the vision tower has 2. Pass 2 or fewer"):
        LastBlocks(3).prepare(model)
