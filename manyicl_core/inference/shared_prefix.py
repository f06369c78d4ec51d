"""Attention of a whole batch to one copy of a prefix's keys and values.

Every row of a batch has the same prefix before its own tokens, its suffix. The rows' queries are
laid side by side and multiplied with the prefix once; each row then attends to its own suffix,
and the two results are merged exactly, by their log-sum-exps (Juravsky et al. 2024, *Hydragen*,
arXiv 2402.05099). Without it every row needs a copy of the prefix, read and written at each token.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from manyicl_core.base_models.attention import blocked_attention

SHARED_PREFIX_ATTENTION = "manyicl_shared_prefix"
"""The name under which transformers finds this module's attention."""

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Per layer keys and values, each ``[1, kv heads, tokens, head size]``."""

_MOST_SCORES = {"cpu": 2**21, "cuda": 2**26}
"""Attention scores in memory at once: on a CPU they should stay in its caches."""


@dataclass(slots=True)
class SharedPrefix:
    """The prefix of one forward pass; ``reads`` counts the layers that attended to it."""

    layers: Layers
    reads: int = 0


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared_prefix: SharedPrefix | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for the attention of a layer; without ``shared_prefix`` that is the base model's own.

    Args:
        query: ``[rows, heads, new, head size]``.
        key: the suffixes', new tokens included: ``[rows, kv heads, suffix, head size]``; so is ``value``.
        attention_mask: bool ``[rows, 1, new, suffix]``, True where attended; None: plain causal.

    Returns:
        ``[rows, new, heads, head size]``, and no weights.
    """
    if shared_prefix is None:
        return blocked_attention(module, query, key, value, attention_mask, scaling=scaling, **rest)
    shared_prefix.reads += 1
    layer = module.layer_idx
    assert isinstance(layer, int) and rest.get("softcap") is None
    prefix_keys, prefix_values = shared_prefix.layers[layer]
    rows, heads, new, size = query.shape
    kv_heads, suffix = key.shape[1:3]
    group = heads // kv_heads
    scale = size**-0.5 if scaling is None else scaling
    if attention_mask is None:
        attention_mask = torch.ones(new, suffix, dtype=torch.bool, device=query.device).tril(suffix - new)
    # Positions before heads of a group: chunks of the mask are then runs of it.
    grouped = query.view(rows, kv_heads, group, new, size).transpose(2, 3)
    own = _attend(
        grouped.reshape(rows, kv_heads, new * group, size),
        key,
        value,
        scale,
        attention_mask.expand(rows, 1, new, suffix).repeat_interleave(group, dim=2),
    )
    folded = grouped.transpose(0, 1).reshape(1, kv_heads, rows * new * group, size)
    output, log_sum = _attend(folded, prefix_keys, prefix_values, scale)
    output, log_sum = (part.view(kv_heads, rows, new * group, -1).transpose(0, 1) for part in (output, log_sum))
    # The prefix's share of the softmax over both.
    share = torch.sigmoid(log_sum - own[1])
    merged = (share * output + (1 - share) * own[0]).to(query.dtype)
    merged = merged.view(rows, kv_heads, new, group, size).permute(0, 2, 1, 3, 4)
    return merged.reshape(rows, new, heads, size).contiguous(), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention and the log-sum-exp of its scores, over chunks of queries.

    Args:
        query: ``[batch, kv heads, queries, head size]``; ``key`` and ``value`` have tokens for queries.
        mask: bool ``[batch, 1, queries, tokens]``, True where attended, somewhere in each row.

    Returns:
        float32 ``[batch, kv heads, queries, head size]`` and ``[batch, kv heads, queries, 1]``.
    """
    batch, kv_heads, queries, _ = query.shape
    tokens = key.shape[2]
    chunk = max(1, _MOST_SCORES[query.device.type] // (batch * kv_heads * tokens))
    outputs, log_sums = [], []
    for start in range(0, queries, chunk):
        scores = (query[:, :, start : start + chunk] @ key.transpose(2, 3)).float() * scale
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, start : start + chunk], -torch.inf)
        log_sum = scores.logsumexp(dim=-1, keepdim=True)
        outputs.append((scores.sub_(log_sum).exp_().to(value.dtype) @ value).float())
        log_sums.append(log_sum)
    return torch.cat(outputs, dim=2), torch.cat(log_sums, dim=2)


AttentionInterface.register(SHARED_PREFIX_ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX_ATTENTION, sdpa_mask)
