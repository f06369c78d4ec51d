"""Attention of rows that are laid end to end, each behind a prefix that it shares with others.

One forward pass takes the new tokens of many rows, of any number each, without padding between
them. The queries of all rows behind the same prefix are multiplied with its one copy; each row
then attends to its own tokens, and the two results are merged exactly, by their log-sum-exps
(Juravsky et al. 2024, *Hydragen*, arXiv 2402.05099). Without it every row needs a copy of the
prefix, read and written at each token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from manyicl_core.base_models.attention import blocked_attention

ROW_ATTENTION = "manyicl_rows"
"""The name under which transformers finds this module's attention."""

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Per layer keys and values, each ``[rows, kv heads, tokens, head size]``; of a prefix there is one row."""

_MOST_SCORES = {"cpu": 2**21, "cuda": 2**26}
"""Attention scores in memory at once: on a CPU they should stay in its last cache."""

Pick = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Picks one score a query, and its share, out of ``scores [..., tokens]`` and their softmax."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring rows whose own attention is one product; shorter ones are padded to ``width`` tokens.

    Attributes:
        rows: of the slots.
        tokens: of the pass, where these rows' tokens are.
        width: new tokens of the longest row.
        reach: own tokens of the row that then has most.
        hidden: bool ``[rows, 1, width * group, reach]``, True where a query may not look; None: nowhere.
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
    """A prefix, and which of the tokens in ``Level.order`` stand behind it."""

    prefix: Layers
    tokens: slice


@dataclass(frozen=True, slots=True)
class Level:
    """Prefixes of which no token stands behind two.

    Attributes:
        order: int64, the tokens that stand behind one, prefix after prefix; None: all as they are.
    """

    order: torch.Tensor | None
    behind: tuple[Behind, ...]


@dataclass(slots=True)
class Pass:
    """What attention needs to know of one forward pass.

    Attributes:
        slots: the rows' own keys and values, which grow by the new tokens.
        row: int64 ``[tokens]``, the slot of each new token; ``place`` is where in it the token goes.
        levels: a row's first prefix is in the first one, and so on.
        picks_greatest: take log-sum-exps from each query's greatest score, rather than from the one at hand.
        reads: counts the layers that asked.
        differences: between the log-sum-exps that were merged, of all layers.
    """

    slots: Layers
    row: torch.Tensor
    place: torch.Tensor
    blocks: tuple[Block, ...]
    levels: tuple[Level, ...]
    picks_greatest: bool = False
    reads: int = 0
    differences: list[torch.Tensor] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether every share that a log-sum-exp was taken from was large enough for it."""
        return not self.differences or bool(torch.cat(self.differences).isfinite().all())

    def again(self) -> "Pass":
        """The same pass, for one that was not exact."""
        return replace(self, picks_greatest=True, reads=0, differences=[])


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
    heads, tokens, size = query.shape[1:]
    kv_heads = key.shape[1]
    keys[rows.row, :, rows.place] = key[0].transpose(0, 1)
    values[rows.row, :, rows.place] = value[0].transpose(0, 1)
    scale = size**-0.5 if scaling is None else scaling
    # [tokens, kv heads, heads of a group, head size]
    grouped = (query[0].transpose(0, 1) * scale).view(tokens, kv_heads, heads // kv_heads, size)
    return _attended(grouped, keys, values, layer, rows).reshape(1, tokens, heads, size), None


def _attended(grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layer: int, rows: Pass) -> torch.Tensor:
    """Attention of all tokens to their own rows and to their prefixes."""
    pick = _greatest if rows.picks_greatest else _first
    output, log_sum = _joined([_own(grouped[block.tokens], keys, values, block, pick) for block in rows.blocks], 0)
    for level in rows.levels:
        here = slice(None) if level.order is None else level.order
        other, other_log_sum = _behind(grouped[here], level, layer, pick)
        difference = other_log_sum - log_sum[here]
        rows.differences.append(difference.flatten())
        merged = torch.lerp(output[here], other, difference.sigmoid().to(output.dtype))
        if len(rows.levels) > 1:
            log_sum[here] = torch.logaddexp(log_sum[here], other_log_sum)
        if level.order is None:
            output = merged
        else:
            output[here] = merged
    return output


Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What queries attended to ``[…, head size]``, and the picked scores and shares ``[…, 1]``."""


def _joined(parts: list[Found], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What all queries attended to, and the log-sum-exps of their scores; the parts follow one another in ``dim``."""
    output, score, share = parts[0] if len(parts) == 1 else (torch.cat(part, dim) for part in zip(*parts, strict=True))
    return output, score - share.float().log()


def _own(grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, pick: Pick) -> Found:
    """Attention of a block's rows to their own tokens, each ``[tokens, kv heads, group, …]``."""
    _, kv_heads, group, size = grouped.shape
    count = block.rows.stop - block.rows.start
    if block.spread is not None:
        grouped = grouped[block.spread]
    # Positions before heads of a group: chunks of what is hidden are then runs of it.
    query = grouped.view(count, block.width, kv_heads, group, size).transpose(1, 2)
    output, score, share = (
        part.view(count, kv_heads, block.width, group, -1).transpose(1, 2).reshape(-1, kv_heads, group, part.shape[-1])
        for part in _attend(
            query.reshape(count * kv_heads, block.width * group, size),
            keys[block.rows, :, : block.reach].flatten(0, 1),
            values[block.rows, :, : block.reach].flatten(0, 1),
            pick,
            block.hidden,
        )
    )
    return (output, score, share) if block.kept is None else (output[block.kept], score[block.kept], share[block.kept])


def _behind(grouped: torch.Tensor, level: Level, layer: int, pick: Pick) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of tokens to their prefixes, and the log-sum-exps, each ``[tokens, kv heads, group, …]``."""
    tokens, kv_heads, group, size = grouped.shape
    # As few operations a prefix as can be: there may be one a row.
    query = grouped.transpose(0, 1).reshape(kv_heads, tokens * group, size)
    parts = []
    for behind in level.behind:
        keys, values = behind.prefix[layer]
        mine = query[:, behind.tokens.start * group : behind.tokens.stop * group]
        parts.append(_attend(mine, keys[0], values[0], pick))
    output, log_sum = _joined(parts, 1)
    return (
        output.view(kv_heads, tokens, group, size).transpose(0, 1),
        log_sum.view(kv_heads, tokens, group, 1).transpose(0, 1),
    )


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pick: Pick, hidden: torch.Tensor | None = None
) -> Found:
    """Softmax attention, over chunks of queries.

    Args:
        query: ``[batch, queries, head size]``, scaled; ``key`` and ``value`` have tokens for queries.
        hidden: bool ``[rows, 1, queries, tokens]``, False somewhere in each row; a row is a part of the batch.

    Returns:
        ``[batch, queries, head size]``, and the picked scores and shares ``[batch, queries, 1]``.
    """
    batch, queries, _ = query.shape
    chunk = max(1, _MOST_SCORES[query.device.type] // (batch * key.shape[1]))
    key = key.transpose(1, 2)
    found: list[Found] = []
    for start in range(0, queries, chunk):
        scores = torch.bmm(query[:, start : start + chunk], key)
        if hidden is not None:
            here = hidden[:, :, start : start + chunk]
            scores.unflatten(0, (len(here), -1)).masked_fill_(here, -torch.inf)
        shares = torch.softmax(scores, dim=-1)
        found.append((torch.bmm(shares, value), *pick(scores, shares)))
    if len(found) == 1:
        return found[0]
    output, score, share = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
    return output, score, share


def _first(scores: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first token's, which are at hand. Its share is hardly ever too small to take the logarithm of."""
    return scores[..., :1], shares[..., :1]


def _greatest(scores: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The greatest ones; finding them takes as long as the softmax."""
    return scores.amax(dim=-1, keepdim=True), shares.amax(dim=-1, keepdim=True)


def _no_mask(*_: Any, **__: Any) -> None:
    """Who may attend to whom is in the pass; transformers need not lay it out."""


AttentionInterface.register(ROW_ATTENTION, row_attention)
AttentionMaskInterface.register(ROW_ATTENTION, _no_mask)
