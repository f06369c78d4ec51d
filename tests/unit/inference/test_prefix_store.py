"""Compiled prefixes: found by all that they are of, within a budget of bytes, least recently used out first."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_store import PrefixStore


def prefix_of(*tokens: int) -> Prefix:
    """A prefix of 8 bytes a token."""
    tensor = torch.zeros(1, 1, len(tokens), 1)
    return Prefix(tokens, ((tensor, tensor.clone()),))


def key_of(*tokens: int, adapter: str | None = None, salt: str = "") -> PrefixKey:
    return PrefixKey(adapter, salt, tokens)


def put(store: PrefixStore, key: PrefixKey) -> Prefix:
    """Keep a prefix that nobody holds."""
    prefix = prefix_of(*key.tokens)
    assert store.set_aside(prefix.size_bytes)
    store.put(key, prefix)
    store.release(key)
    return prefix


def test_a_prefix_is_found_under_its_model_tenant_and_all_its_tokens_only():
    store = PrefixStore(1000)
    kept = put(store, key_of(1, 2, 3, adapter="one", salt="a"))
    assert store.hold(key_of(1, 2, 3, adapter="one", salt="a")) is kept
    for other in (
        key_of(1, 2, 3, salt="a"),
        key_of(1, 2, 3, adapter="one"),
        key_of(1, 2, 3, adapter="two", salt="a"),
        key_of(1, 2, 3, adapter="one", salt="b"),
        key_of(1, 2, adapter="one", salt="a"),
        key_of(1, 2, 4, adapter="one", salt="a"),
        key_of(1, 2, 3, 4, adapter="one", salt="a"),
    ):
        assert other not in store
        assert store.hold(other) is None


def test_models_and_tenants_keep_prefixes_of_the_same_tokens():
    store = PrefixStore(1000)
    keys = [key_of(1, 2, adapter=adapter, salt=salt) for adapter in (None, "one", "two") for salt in ("", "a", "b")]
    kept = [put(store, key) for key in keys]
    assert [store.hold(key) for key in keys] == kept


def test_the_longest_start_is_of_the_same_model_and_tenant():
    store = PrefixStore(1000)
    for key in (
        key_of(1),
        key_of(1, 2),
        key_of(1, 2, 4),
        key_of(1, 2, 3, 4, 5),
        key_of(1, 2, 3, adapter="one"),
        key_of(1, 2, 3, salt="a"),
    ):
        put(store, key)
    assert store.longest_start(key_of(1, 2, 3, 4)).tokens == (1, 2, 3, 4)
    assert store.longest_start(key_of(1, 2, 9)).tokens == (1, 2)
    assert store.longest_start(key_of(1, 2, 3, 4, adapter="one")).tokens == (1, 2, 3)
    assert store.longest_start(key_of(1, 2, 3, 4, adapter="one", salt="a")).tokens == ()
    assert store.longest_start(key_of(2, 3)).tokens == ()


def test_the_least_recently_used_prefix_goes_first():
    store = PrefixStore(3 * 8)
    for token in (1, 2, 3):
        put(store, key_of(token))
    store.hold(key_of(1))
    store.release(key_of(1))
    put(store, key_of(4))
    assert [key_of(token) in store for token in (1, 2, 3, 4)] == [True, False, True, True]


def test_a_held_prefix_stays_until_the_last_holder_lets_go():
    store = PrefixStore(3 * 8)
    put(store, key_of(1, 2))
    for _ in range(2):
        store.hold(key_of(1, 2))
    for _ in range(2):
        assert not store.set_aside(2 * 8)
        store.shrink()
        assert key_of(1, 2) in store
        store.release(key_of(1, 2))
    assert store.set_aside(2 * 8)
    assert key_of(1, 2) not in store


def test_room_that_is_set_aside_counts():
    store = PrefixStore(3 * 8)
    assert store.set_aside(2 * 8)
    assert not store.set_aside(2 * 8)
    store.give_back(2 * 8)
    assert store.set_aside(3 * 8)
    assert store.size_bytes == 3 * 8


def test_a_prefix_that_is_larger_than_the_budget_evicts_nothing_that_is_held():
    store = PrefixStore(8)
    put(store, key_of(1))
    store.hold(key_of(1))
    assert not store.set_aside(16)
    assert key_of(1) in store


def test_what_nobody_holds_can_be_forgotten():
    store = PrefixStore(1000)
    for token in (1, 2, 3):
        put(store, key_of(token))
    store.hold(key_of(2))
    for token in (1, 2, 4):
        store.forget(key_of(token))
    assert [key_of(token) in store for token in (1, 2, 3)] == [False, True, True]
    assert store.size_bytes == 16
    store.release(key_of(2))
    assert key_of(2) not in store
    assert store.size_bytes == 8


class _Traffic(RuleBasedStateMachine):
    """Any order of what an engine may do with a store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = PrefixStore(10 * 8)
        self.held: list[PrefixKey] = []
        self.making: list[PrefixKey] = []

    @rule(first=st.integers(1, 3), length=st.integers(1, 6), adapter=st.sampled_from([None, "one"]))
    def begin(self, first: int, length: int, adapter: str | None) -> None:
        key = key_of(*range(first, first + length), adapter=adapter)
        if (prefix := self.store.hold(key)) is not None:
            assert prefix.tokens == key.tokens
            self.held.append(key)
        elif key not in self.making and self.store.set_aside(8 * length):
            self.making.append(key)

    @precondition(lambda self: self.making)
    @rule(data=st.data(), given_up=st.booleans())
    def end_a_making(self, data: st.DataObject, given_up: bool) -> None:
        key = self.making.pop(data.draw(st.integers(0, len(self.making) - 1)))
        if given_up:
            self.store.give_back(8 * len(key.tokens))
        else:
            self.store.put(key, prefix_of(*key.tokens))
            self.held.append(key)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.store.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule()
    def shrink(self) -> None:
        self.store.shrink()
        assert self.store.size_bytes == 8 * sum(len(key.tokens) for key in {*self.held, *self.making})

    @invariant()
    def the_budget_holds_to_the_byte_and_what_is_held_stays(self) -> None:
        assert all(key in self.store for key in self.held)
        keys = [
            key_of(*range(first, first + length), adapter=adapter)
            for first in (1, 2, 3)
            for length in range(1, 7)
            for adapter in (None, "one")
        ]
        kept = sum(len(key.tokens) for key in keys if key in self.store)
        assert self.store.size_bytes == 8 * (kept + sum(len(key.tokens) for key in self.making)) <= 10 * 8


TestTraffic = _Traffic.TestCase
TestTraffic.settings = settings(max_examples=30, stateful_step_count=25)


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(0, 100))
def test_what_came_last_is_kept_if_the_budget_allows_it_at_all(lengths, budget):
    store = PrefixStore(budget)
    for number, length in enumerate(lengths):
        key = key_of(*range(length), adapter=str(number))
        if not store.set_aside(8 * length):
            assert 8 * length > budget
            continue
        store.put(key, prefix_of(*key.tokens))
        store.release(key)
        assert key in store
        assert store.size_bytes <= budget


def test_of_two_prefixes_of_one_key_the_first_is_kept():
    store = PrefixStore(1000)
    put(store, key_of(1))
    first, size = store.hold(key_of(1)), store.size_bytes
    store.release(key_of(1))
    assert store.set_aside(size)
    assert store.put(key_of(1), prefix_of(1)) is first
    assert store.size_bytes == size
    assert not store.set_aside(1000), "it is held"
    store.release(key_of(1))
    assert store.set_aside(1000)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_a_shorter_context_is_cut_from_a_longer_one_and_a_sibling_shares_its_start(
    base_only: LanguageModel, eight_bits: bool
):
    model = TunedModel(base_only)
    store = PrefixStore(1 << 30, eight_bits=eight_bits)
    longer = tuple(range(10, 60))
    assert store.set_aside(len(longer) * base_only.bytes_a_token)
    kept = store.put(PrefixKey(None, "salt", longer), compile_prefix(model, longer))
    for wanted, shared in (
        (longer[:20], 20),
        ((*longer[:31], 7, 8), 31),
        ((9, *longer), 0),
    ):
        start = store.longest_start(PrefixKey(None, "salt", wanted))
        assert start.tokens == wanted[:shared]
        for layer, whole in zip(start.layers, kept.layers, strict=False):
            assert all(torch.equal(part, other[:, :, :shared]) for part, other in zip(layer, whole, strict=True))
        assert not store.longest_start(PrefixKey(None, "another", wanted)).tokens
