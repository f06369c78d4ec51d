"""Compiled prefixes: found by adapter and tokens alone, kept within a budget of bytes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.prefix_store import PrefixStore


def prefix_of(*tokens: int) -> Prefix:
    """A prefix of 8 bytes a token."""
    tensor = torch.zeros(1, 1, len(tokens), 1)
    return Prefix(tokens, ((tensor, tensor.clone()),))


def test_a_prefix_is_found_under_its_adapter_and_all_its_tokens_only():
    store = PrefixStore(1000)
    kept = prefix_of(1, 2, 3)
    store.put("adapter", kept)
    assert store.get("adapter", (1, 2, 3)) is kept
    for adapter, tokens in ((None, (1, 2, 3)), ("other", (1, 2, 3)), ("adapter", (1, 2)), ("adapter", (1, 2, 4))):
        assert store.get(adapter, tokens) is None


def test_two_adapters_keep_prefixes_of_the_same_tokens():
    store = PrefixStore(1000)
    kept = {adapter: prefix_of(1, 2) for adapter in (None, "one", "two")}
    for adapter, prefix in kept.items():
        store.put(adapter, prefix)
    assert all(store.get(adapter, (1, 2)) is prefix for adapter, prefix in kept.items())


def test_the_least_recently_used_prefix_goes_first():
    store = PrefixStore(3 * 8)
    for token in (1, 2, 3):
        store.put(None, prefix_of(token))
    store.get(None, (1,))
    store.put(None, prefix_of(4))
    assert [store.get(None, (token,)) is not None for token in (1, 2, 3, 4)] == [True, False, True, True]


def test_a_prefix_that_is_larger_than_the_budget_is_not_kept():
    store = PrefixStore(8)
    store.put(None, prefix_of(1, 2))
    assert store.get(None, (1, 2)) is None
    assert store.size_bytes == 0


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(0, 100))
def test_the_budget_holds_after_every_put_and_what_came_last_is_kept(lengths, budget):
    store = PrefixStore(budget)
    for adapter, length in enumerate(lengths):
        store.put(str(adapter), prefix_of(*range(length)))
        kept = [known for known in range(adapter + 1) if store.get(str(known), tuple(range(lengths[known])))]
        assert store.size_bytes == sum(8 * lengths[known] for known in kept) <= budget
        assert (adapter in kept) == (8 * length <= budget)
