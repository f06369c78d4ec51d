"""A key is looked up again after a moment, and after any key has changed."""

import pytest

from api import known_keys
from api.known_keys import KNOWN_SECONDS, KnownKeys
from manyicl_core.store.projects.service import Caller

CALLER = Caller("proj_1", "key_1", frozenset({"read"}))


def test_a_key_is_known_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: now)
    keys = KnownKeys()
    assert keys.find("a secret") is None
    keys.remember("a secret", CALLER)
    assert keys.find("a secret") is CALLER
    assert keys.find("another") is None
    now += KNOWN_SECONDS
    assert keys.find("a secret") is None


def test_a_key_that_is_in_use_is_looked_up_anew_by_one_request_while_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: now)
    keys = KnownKeys()
    keys.remember("sk-a", CALLER)
    now += KNOWN_SECONDS / 2
    assert [keys.find("sk-a") for _ in range(4)] == [None, CALLER, CALLER, CALLER]
    keys.remember("sk-a", CALLER)
    now += KNOWN_SECONDS / 4
    assert keys.find("sk-a") == CALLER
    # Whoever asked last did not come back: at the end all of them ask.
    now += KNOWN_SECONDS
    assert [keys.find("sk-a") for _ in range(2)] == [None, None]


def test_all_are_looked_up_again_when_one_has_changed() -> None:
    keys = KnownKeys()
    keys.remember("a secret", CALLER)
    keys.forget()
    assert keys.find("a secret") is None


def test_many_keys_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "_MOST", 3)
    keys = KnownKeys()
    for number in range(10):
        keys.remember(f"secret {number}", CALLER)
    assert keys.find("secret 9") is CALLER
    assert len(keys._callers) <= 3
