"""Blocked attention gives what torch's own gives, and leaves to it what is not plain and causal."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.base_models.attention import blocked_attention


def drawn(batch: int, groups: int, shared: int, length: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(batch, groups * shared, length, 16), (batch, groups, length, 16), (batch, groups, length, 16)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def by_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return attended.transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@given(batch=st.integers(1, 2), groups=st.integers(1, 2), shared=st.integers(1, 3), length=st.integers(2, 600))
def test_values_and_gradients_are_those_of_torch(dtype, tolerance, batch, groups, shared, length):
    ours, theirs = drawn(batch, groups, shared, length, dtype), drawn(batch, groups, shared, length, dtype)
    output, _ = blocked_attention(torch.nn.Module(), *ours, None, scaling=0.3)
    expected = by_torch(*theirs, 0.3)
    assert (output - expected).norm() <= tolerance * expected.norm()
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    output.backward(gradient)
    expected.backward(gradient)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() <= tolerance * other.grad.norm()


def test_under_autocast_queries_keys_and_values_may_differ_in_dtype():
    query, key, value = drawn(1, 1, 2, 300, torch.float32)
    mixed = (query, key, value.detach().to(torch.bfloat16).requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = blocked_attention(torch.nn.Module(), *mixed, None, scaling=0.3)
        expected = by_torch(*drawn(1, 1, 2, 300, torch.float32), 0.3)
    assert output.dtype == expected.dtype == torch.bfloat16
    assert (output - expected).norm() <= 5e-2 * expected.norm()
    output.backward(torch.ones_like(output))
    assert [tensor.grad.dtype for tensor in mixed if tensor.grad is not None] == [
        torch.float32,
        torch.float32,
        torch.bfloat16,
    ]


def test_a_mask_is_honoured():
    query, key, value = drawn(2, 1, 1, 5, torch.float32)
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5).clone()
    mask[1, :, :, 0] = False
    mask[1, :, 0, 0] = True
    output, _ = blocked_attention(torch.nn.Module(), query, key, value, mask, scaling=1.0)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    assert not torch.allclose(output, by_torch(query, key, value, 1.0))
