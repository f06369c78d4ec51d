"""Frozen linear layers are those of torch, for every number of tokens, and keep one copy of their weights."""

import weakref

import pytest
import torch
from torch.nn.functional import linear

from manyicl_core.inference.frozen_linear import FrozenLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3,), (1, 33), (2, 130)])
def test_the_product_is_that_of_torch(dtype: torch.dtype, has_bias: bool, shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(70, 48, generator=generator).to(dtype)
    bias = torch.randn(70, generator=generator).to(dtype) if has_bias else None
    states = torch.randn(*shape, 48, generator=generator).to(dtype)
    layer = FrozenLinear(weight, bias)
    assert (layer.inputs, layer.outputs, layer.dtype) == (48, 70, dtype)
    # In bfloat16 sums are rounded once or twice, as the layout has it.
    tolerance = 2**-6 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(layer(states), linear(states, weight, bias), rtol=tolerance, atol=tolerance)


def test_states_may_be_a_part_of_others():
    generator = torch.Generator().manual_seed(0)
    weight, states = torch.randn(70, 48, generator=generator), torch.randn(5, 96, generator=generator)[:, 1:49]
    torch.testing.assert_close(FrozenLinear(weight, None)(states), linear(states, weight))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="the weights stay as they are")
def test_weights_that_were_laid_out_anew_leave_memory():
    weight = torch.randn(70, 48)
    left = weakref.ref(weight)
    layer = FrozenLinear(weight, None)
    del weight
    assert left() is None
    assert layer(torch.ones(1, 48)).shape == (1, 70)
