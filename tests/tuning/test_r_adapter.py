"""R-Adapter: its equation, rescaling and drops."""

import torch
from support.tuned import embed, shake, two_blocks

from hf_pmgaft.tuning import RAdapter, without_tuning


def test_adapters_are_rescaled_at_test_and_dropped_in_training_by_seed_and_step():
    model = RAdapter(drop=0.5, rescale=0.5).prepare(two_blocks())
    shake(model)
    at_test = embed(model)
    model.tuning.at_test = False
    whole = embed(model)
    assert not torch.allclose(at_test, whole)
    for adapter in model.tuning.adapters.values():
        adapter.weight.data.mul_(0.5)
    torch.testing.assert_close(embed(model), at_test)

    def draws(seed: int, step: int) -> list[float]:
        model.tuning.draw(seed, step)
        return list(model.tuning.drop_factors.values())

    assert draws(0, 1) == draws(0, 1) != draws(0, 2) and draws(0, 1) != draws(1, 1)
    every = torch.tensor([draws(0, step) for step in range(200)])
    assert set(every.unique().tolist()) == {0.0, 2.0} and 0.4 < (every == 0).float().mean() < 0.6


def test_an_adapter_computes_what_the_equation_says():
    model = RAdapter(drop=0.0, rescale=1.0).prepare(two_blocks())
    shake(model)
    block, name = model.vision_model.encoder.layers[0], "vision_model-encoder-layers-0-"
    hidden = torch.randn(2, 5, 32)
    h = {part: lambda x, w=model.tuning.adapters[name + part].weight: x @ w + x for part in ("self_attn", "mlp")}
    got = block(hidden, None)
    with without_tuning(model):
        hidden = hidden + h["self_attn"](block.self_attn(block.layer_norm1(hidden))[0])
        torch.testing.assert_close(got, hidden + h["mlp"](block.mlp(block.layer_norm2(hidden))))
