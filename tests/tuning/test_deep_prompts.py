"""Deep prompts: where they stand, and how deep they go."""

import pytest
import torch
from support.tuned import embed, two_blocks

from hf_pmgaft.tuning import DeepPrompts


def test_more_blocks_of_prompts_than_a_tower_has_are_refused():
    with pytest.raises(ValueError, match="depth=9, but the text tower has 2 blocks and the vision tower 2. Pass 2"):
        DeepPrompts().prepare(two_blocks())


def test_deep_prompts_replace_those_of_the_block_before(processor):
    model = DeepPrompts(num_tokens=3, depth=2).prepare(two_blocks())
    lengths, ends = [], []
    for block in model.vision_model.encoder.layers:
        block.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
        block.register_forward_pre_hook(lambda module, args: ends.append(args[0][0, -3:]))
    embed(model)
    assert lengths == [20, 20]  # 16 patches, the class token, 3 prompts
    torch.testing.assert_close(ends[1], model.tuning.blocks[1]()[1])
    sides = [block.learned_on_text for block in model.tuning.blocks]
    assert sides == [True, False]
