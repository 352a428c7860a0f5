"""Flags and precision of a model come back as they were."""

import pytest
import torch
from torch import nn

from hf_pmgaft.modes import at_least_float32, frozen, without_tf32


def test_flags_come_back_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="boom"), frozen(net):
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
        raise RuntimeError("boom")
    assert [module.training for module in net.modules()] == [True, True, False]
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, False]


def test_what_is_no_module_is_left_alone():
    with frozen(torch.tanh):
        pass


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_becomes_float32_and_float64_stays(dtype):
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == expected


def test_tensor_float_32_is_off_for_a_while_and_then_as_it_was():
    matmul = torch.backends.cuda.matmul
    name, on, off = (
        ("fp32_precision", "tf32", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", True, False)
    )
    before = getattr(matmul, name)
    setattr(matmul, name, on)
    try:
        with without_tf32():
            assert getattr(matmul, name) == off
        assert getattr(matmul, name) == on
    finally:
        setattr(matmul, name, before)
