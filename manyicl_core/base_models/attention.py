"""Causal attention for CPUs: blocks of queries over the keys before them, as plain matrix products.

torch's own kernel keeps its blocks small and leaves most of a CPU's matrix units idle; products of
a few hundred rows use them (forward and backward together 1.9 times faster at 1,024 tokens in
bfloat16 on AVX512-BF16, forward alone 2.3 times). Probabilities are computed again in the backward
pass, as in FlashAttention (Dao et al. 2022), so memory grows linearly with the length.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCKED_ATTENTION = "manyicl_blocked"
_BLOCK = 256


class BlockedCausalAttention(torch.autograd.Function):
    """``softmax(scaling · Q Kᵀ) V`` under a causal mask, with grouped key and value heads.

    Queries are ``[batch, heads, length, size]``, keys and values ``[batch, kv heads, length, size]``;
    the result has the queries' shape and dtype. Products are in that dtype, softmax and the sums
    over blocks in float32.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """Attend, block by block."""
        batch, heads, length, size = query.shape
        groups = key.shape[1]
        # Heads that share keys become rows of one product.
        query = (query * scaling).reshape(batch, groups, heads // groups, length, size)
        key, value = key.contiguous(), value.contiguous()
        output = torch.empty_like(query)
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            attended = torch.matmul(_probabilities(query, key, start, end), value[:, :, :end])
            output[:, :, :, start:end] = attended.view(batch, groups, -1, end - start, size)
        ctx.save_for_backward(query, key, value)
        ctx.scaling = scaling
        return output.view(batch, heads, length, size)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Gradients of queries, keys and values."""
        query, key, value = ctx.saved_tensors
        batch, groups, shared, length, size = query.shape
        gradient = gradients[0].reshape(query.shape)
        query_gradient = torch.empty_like(query)
        key_gradient = torch.zeros_like(key, dtype=torch.float32)
        value_gradient = torch.zeros_like(value, dtype=torch.float32)
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            rows = (batch, groups, shared * (end - start), size)
            probabilities = _probabilities(query, key, start, end)
            above = gradient[:, :, :, start:end].reshape(rows)
            value_gradient[:, :, :end] += torch.matmul(probabilities.transpose(-1, -2), above)
            inner = torch.matmul(above, value[:, :, :end].transpose(-1, -2))
            inner = torch._softmax_backward_data(inner, probabilities, -1, inner.dtype)
            query_gradient[:, :, :, start:end] = torch.matmul(inner, key[:, :, :end]).view(
                batch, groups, shared, end - start, size
            )
            key_gradient[:, :, :end] += torch.matmul(inner.transpose(-1, -2), query[:, :, :, start:end].reshape(rows))
        query_gradient = (query_gradient * ctx.scaling).view(batch, groups * shared, length, size)
        return query_gradient, key_gradient.to(key.dtype), value_gradient.to(value.dtype), None


def _probabilities(query: torch.Tensor, key: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """Of queries ``start`` to ``end`` over the keys up to ``end``: ``[batch, groups, rows, end]``."""
    batch, groups, shared, _, size = query.shape
    rows = query[:, :, :, start:end].reshape(batch, groups, shared * (end - start), size)
    scores = torch.matmul(rows, key[:, :, :end].transpose(-1, -2))
    later = torch.full((end - start, end - start), float("-inf"), dtype=scores.dtype).triu_(1)
    scores.view(batch, groups, shared, end - start, end)[..., start:] += later
    return torch.softmax(scores, dim=-1)


def blocked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: blocks for plain causal documents, torch's kernel for the rest."""
    plain = attention_mask is None and dropout == 0.0 and query.shape[2] == key.shape[2] > 1
    if not plain or query.device.type != "cpu" or others.get("is_causal") is False:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    if torch.is_autocast_enabled("cpu"):
        # As autocast does for torch's own kernel: rotated queries and keys of float32 weights are float32.
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    apply: Any = BlockedCausalAttention.apply  # torch types it only in part
    output: torch.Tensor = apply(query, key, value, scaling or query.shape[-1] ** -0.5)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(BLOCKED_ATTENTION, blocked_attention)
AttentionMaskInterface.register(BLOCKED_ATTENTION, sdpa_mask)
