"""Attention of rows that are laid end to end, each behind a prefix that it shares with others.

One forward pass takes the new tokens of many rows, of any number each, without padding between
them. The queries of all rows behind the same prefix are multiplied with its one copy; each row
then attends to its own tokens, and the two results are merged exactly, by their log-sum-exps
(Juravsky et al. 2024, *Hydragen*, arXiv 2402.05099). Without it every row needs a copy of the
prefix, read and written at each token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from manyicl_core.base_models.attention import blocked_attention

ROW_ATTENTION = "manyicl_rows"
"""The name under which transformers finds this module's attention."""

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Per layer keys and values, each ``[rows, kv heads, tokens, head size]``; of a prefix there is one row."""

_MOST_SCORES = {"cpu": 2**19, "cuda": 2**26}
"""Attention scores in memory at once: on a CPU they should stay in its caches."""

LogSumExp = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring rows whose own attention is one product; shorter ones are padded to ``width`` tokens.

    Attributes:
        rows: of the slots.
        tokens: of the pass, where these rows' tokens are.
        width: new tokens of the longest row.
        reach: own tokens of the row that then has most.
        hidden: bool ``[rows, 1, width, 1, reach]``, True where a token may not look; None: nowhere.
        spread: int64 ``[rows * width]``, which of ``tokens`` each place holds; None: no padding.
        kept: int64, the places that hold a token; None: all.
    """

    rows: slice
    tokens: slice
    width: int
    reach: int
    hidden: torch.Tensor | None
    spread: torch.Tensor | None
    kept: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Behind:
    """Tokens of a pass (int64 indices; None: all of them) that stand behind one prefix."""

    prefix: Layers
    tokens: torch.Tensor | None


@dataclass(slots=True)
class Pass:
    """What attention needs to know of one forward pass; ``reads`` counts the layers that asked.

    Attributes:
        slots: the rows' own keys and values, which grow by the new tokens.
        row: int64 ``[tokens]``, the slot of each new token; ``place`` is where in it the token goes.
    """

    slots: Layers
    row: torch.Tensor
    place: torch.Tensor
    blocks: tuple[Block, ...]
    behind: tuple[Behind, ...]
    reads: int = 0


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    rows: Pass | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for the attention of a layer; without ``rows`` it is one plain causal document.

    Args:
        query: ``[1, heads, tokens, head size]``.
        key: of the new tokens: ``[1, kv heads, tokens, head size]``; so is ``value``.
        attention_mask: always None.

    Returns:
        ``[1, tokens, heads, head size]``, and no weights.
    """
    assert attention_mask is None and rest.get("softcap") is None and rest.get("sliding_window") is None
    if rows is None:
        return blocked_attention(module, query, key, value, None, scaling=scaling, **rest)
    rows.reads += 1
    layer = module.layer_idx
    assert isinstance(layer, int)
    keys, values = rows.slots[layer]
    keys[rows.row, :, rows.place] = key[0].transpose(0, 1)
    values[rows.row, :, rows.place] = value[0].transpose(0, 1)
    heads, tokens, size = query.shape[1:]
    kv_heads = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    # [tokens, kv heads, heads of a group, head size]
    grouped = (query[0].transpose(0, 1) * scale).reshape(tokens, kv_heads, heads // kv_heads, size)
    output = _attended(grouped, keys, values, layer, rows, _any_log_sum_exp)
    if output is None:
        output = _attended(grouped, keys, values, layer, rows, _log_sum_exp_of_greatest)
        assert output is not None
    return output.reshape(1, tokens, heads, size), None


def _attended(
    grouped: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    layer: int,
    rows: Pass,
    log_sum_exp: LogSumExp,
) -> torch.Tensor | None:
    """Attention of all tokens to their own rows and to their prefixes; None: not with this log-sum-exp."""
    parts = [_own(grouped[block.tokens], keys, values, block, log_sum_exp) for block in rows.blocks]
    output, log_sum = parts[0] if len(parts) == 1 else (torch.cat(part) for part in zip(*parts, strict=True))
    for behind in rows.behind:
        everywhere = behind.tokens is None
        here = slice(None) if everywhere else behind.tokens
        other, other_log_sum = _behind(grouped[here], behind.prefix[layer], log_sum_exp)
        difference = other_log_sum - log_sum[here]
        if not bool(difference.isfinite().all()):
            return None
        merged = torch.lerp(output[here], other, difference.sigmoid_().to(output.dtype))
        if everywhere:
            output = merged
        else:
            output[here] = merged
    return output


def _own(
    grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, log_sum_exp: LogSumExp
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a block's rows to their own tokens: ``[tokens, kv heads, group, head size]``, and log-sum-exps."""
    _, kv_heads, group, size = grouped.shape
    count = block.rows.stop - block.rows.start
    if block.spread is not None:
        grouped = grouped[block.spread]
    # Positions before heads of a group: chunks of what is hidden are then runs of it.
    query = grouped.view(count, block.width, kv_heads, group, size).transpose(1, 2)
    hidden = block.hidden
    if hidden is not None:
        hidden = hidden.expand(-1, -1, -1, group, -1).reshape(count, 1, block.width * group, block.reach)
    own_keys, own_values = (part[block.rows, :, : block.reach] for part in (keys, values))
    query = query.reshape(count, kv_heads, block.width * group, size)
    found = _attend(query, own_keys, own_values, log_sum_exp, hidden)
    output, log_sum = (
        part.view(count, kv_heads, block.width, group, -1).transpose(1, 2).reshape(-1, kv_heads, group, part.shape[-1])
        for part in found
    )
    return (output, log_sum) if block.kept is None else (output[block.kept], log_sum[block.kept])


def _behind(
    grouped: torch.Tensor, prefix: tuple[torch.Tensor, torch.Tensor], log_sum_exp: LogSumExp
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of tokens to one prefix; shapes as of ``_own``."""
    tokens, kv_heads, group, size = grouped.shape
    query = grouped.transpose(0, 1).reshape(1, kv_heads, tokens * group, size)
    output, log_sum = _attend(query, *prefix, log_sum_exp)
    return (
        output.view(kv_heads, tokens, group, size).transpose(0, 1),
        log_sum.view(kv_heads, tokens, group, 1).transpose(0, 1),
    )


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_sum_exp: LogSumExp,
    hidden: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention and the log-sum-exp of its scores, over chunks of queries.

    Args:
        query: ``[batch, kv heads, queries, head size]``, scaled; ``key`` and ``value`` have tokens for queries.
        hidden: bool ``[batch, 1, queries, tokens]``, False somewhere in each row.

    Returns:
        ``[batch, kv heads, queries, head size]``, and float32 ``[batch, kv heads, queries, 1]``.
    """
    batch, kv_heads, queries, _ = query.shape
    chunk = max(1, _MOST_SCORES[query.device.type] // (batch * kv_heads * key.shape[2]))
    key = key.transpose(2, 3)
    outputs, log_sums = [], []
    for start in range(0, queries, chunk):
        scores = query[:, :, start : start + chunk] @ key
        if hidden is not None:
            scores = scores.masked_fill_(hidden[:, :, start : start + chunk], -torch.inf)
        shares = torch.softmax(scores, dim=-1)
        log_sums.append(log_sum_exp(scores, shares))
        outputs.append(shares @ value)
    if len(outputs) == 1:
        return outputs[0], log_sums[0]
    return torch.cat(outputs, dim=2), torch.cat(log_sums, dim=2)


def _any_log_sum_exp(scores: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Of ``scores [..., tokens]`` from their softmax, ``[..., 1]``: any one score and its share tell it.

    The first token's are at hand; it is infinite where that share is too small for a number, which
    hardly ever happens.
    """
    return scores[..., :1].float() - shares[..., :1].float().log()


def _log_sum_exp_of_greatest(scores: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The same from the greatest score, whose share is never small; finding it takes half as long as the softmax."""
    return scores.amax(dim=-1, keepdim=True).float() - shares.amax(dim=-1, keepdim=True).float().log()


def _no_mask(*_: Any, **__: Any) -> None:
    """Who may attend to whom is in the pass; transformers need not lay it out."""


AttentionInterface.register(ROW_ATTENTION, row_attention)
AttentionMaskInterface.register(ROW_ATTENTION, _no_mask)
