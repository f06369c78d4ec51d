"""Attention to one copy of a prefix is attention to a copy a row."""

import pytest
import torch

from manyicl_core.inference import shared_prefix as shared_prefix_module
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import compile_prefix
from manyicl_core.inference.shared_prefix import SharedPrefix, shared_prefix_attention
from tests.unit.inference.greedy import plain_greedy

SIZE = 8


class Layer(torch.nn.Module):
    """The little that attention asks of its module."""

    layer_idx = 1


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, prefix: torch.Tensor, scale: float
) -> torch.Tensor:
    """By torch, with keys and values copied for every row and every head; ``prefix [2, 1, kv heads, length, size]``."""
    rows, heads = query.shape[:2]
    copies = [part.expand(rows, -1, -1, -1) for part in prefix]
    keys, values = (
        torch.cat([copy, part], dim=2).repeat_interleave(heads // part.shape[1], dim=1)
        for copy, part in zip(copies, (key, value), strict=True)
    )
    mask = torch.cat([torch.ones(*mask.shape[:3], prefix.shape[3], dtype=torch.bool), mask], dim=3)
    return torch.nn.functional.scaled_dot_product_attention(query, keys, values, mask, scale=scale).transpose(1, 2)


@pytest.mark.parametrize("most_scores", [1, 50, 2**21])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)])
@pytest.mark.parametrize(
    ("rows", "new", "suffix", "length"), [(1, 1, 1, 1), (5, 1, 7, 30), (3, 6, 6, 11), (4, 3, 9, 2)]
)
def test_the_merged_attention_is_that_of_whole_rows(
    monkeypatch: pytest.MonkeyPatch,
    most_scores: int,
    heads: tuple[int, int],
    rows: int,
    new: int,
    suffix: int,
    length: int,
):
    monkeypatch.setitem(shared_prefix_module._MOST_SCORES, "cpu", most_scores)
    torch.manual_seed(rows + new)
    query = torch.randn(rows, heads[0], new, SIZE) * 3
    key, value = torch.randn(2, rows, heads[1], suffix, SIZE)
    prefix = torch.randn(2, 1, heads[1], length, SIZE)
    causal = torch.ones(new, suffix, dtype=torch.bool).tril(suffix - new).expand(rows, 1, new, suffix)
    ragged = causal.clone()
    ragged[-1, ..., 1:] = False  # one row of a single real token
    unused = (torch.empty(0), torch.empty(0))
    for mask, given in ((causal, None), (causal, causal), (ragged, ragged)):
        for scale in (0.5, None):
            shared = SharedPrefix((unused, (prefix[0], prefix[1])))
            found, _ = shared_prefix_attention(Layer(), query, key, value, given, scaling=scale, shared_prefix=shared)
            expected = plain_attention(query, key, value, mask, prefix, scale or SIZE**-0.5)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert shared.reads == 1


@pytest.mark.parametrize("rows", [1, 2, 17, 40])
@pytest.mark.parametrize("length", [1, 37, 600])
def test_batches_of_any_size_behind_prefixes_of_any_length_are_decoded_as_by_the_plain_model(
    base_only: LanguageModel, plain, rows: int, length: int
):
    generator = torch.Generator().manual_seed(rows)

    def random_tokens(count: int) -> list[int]:
        return torch.randint(3, 384, (count,), generator=generator).tolist()

    context = random_tokens(length)
    queries = [random_tokens(1 + row % 9) for row in range(rows)]
    prefix = compile_prefix(base_only, tuple(context))
    found = answers(base_only, prefix, queries, 5, frozenset())
    for row in {0, rows // 2, rows - 1}:
        assert found[row] == plain_greedy(plain, [*context, *queries[row]], 5)


def test_rows_hold_no_copy_of_their_prefix(base_only: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    hidden_states = LanguageModel.hidden_states

    def watched(self, tokens, cache, *rest):
        states = hidden_states(self, tokens, cache, *rest)
        held.append(cache.get_seq_length())
        return states

    prefix = compile_prefix(base_only, tuple(range(40, 75)))
    monkeypatch.setattr(LanguageModel, "hidden_states", watched)
    answers(base_only, prefix, [[5, 6], [7]], 3, frozenset())
    assert held == [2, 3, 4]


def test_a_model_that_drops_the_prefix_on_the_way_is_found_out(
    base_only: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    prefix = compile_prefix(base_only, (40, 41, 42))
    inner = base_only._base.base_model
    forward = inner.forward

    def forgetful(*arguments, shared_prefix=None, **options):
        return forward(*arguments, **options)

    monkeypatch.setattr(inner, "forward", forgetful)
    with pytest.raises(AssertionError):
        answers(base_only, prefix, [[5, 6]], 3, frozenset())
