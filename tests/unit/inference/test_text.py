"""Tokens to text while they come: nothing of a stop string is ever shown, and nothing else is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from manyicl_core.inference.text import TextStream

# Few letters, so that stop strings occur, overlap and nearly occur; words, so that tokens have several letters.
_few = st.text(alphabet="ab\né", max_size=12) | st.sampled_from(["the", "Input:", "Output:", "t", "e", "\n"])
_any = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=12)
_stop = st.text(alphabet="ab\né", min_size=1, max_size=4) | st.sampled_from(
    ["he", "the", "e", "putput", "utput", "tp", "\nI"]
)
_stops = st.lists(_stop, max_size=3)


def cut(text: str, stops: list[str]) -> str:
    """What a reader sees who gets the text character by character and ends with the first stop string."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return text


def streamed(tokenizer: Tokenizer, tokens: list[int], stops: list[str]) -> tuple[str, bool]:
    stream = TextStream(tokenizer, stops)
    shown = ""
    for token in tokens:
        shown += stream.push(token)
        if stream.stopped:
            break
    return shown + stream.flush(), stream.stopped


def tokens_of(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    """Token ids of the pieces, each on its own: borders fall where a model might put them."""
    return [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False).ids]


@given(st.lists(_few | _any, max_size=5), _stops)
def test_the_text_ends_before_the_first_stop_string_wherever_tokens_begin(tokenizer, pieces, stops):
    text = "".join(pieces)
    shown, stopped = streamed(tokenizer, tokens_of(tokenizer, pieces), stops)
    assert shown == cut(text, stops)
    assert stopped == any(stop in text for stop in stops)


def test_a_stop_string_within_another_ends_the_text_at_the_same_place_wherever_tokens_begin(tokenizer: Tokenizer):
    for pieces in (["Output"], list("Output")):
        assert streamed(tokenizer, tokens_of(tokenizer, pieces), ["utput", "tp"]) == ("Ou", True)


@given(st.lists(_few, max_size=5), _stops)
def test_what_is_shown_early_is_never_taken_back(tokenizer, pieces, stops):
    stream = TextStream(tokenizer, stops)
    shown = ""
    for token in tokens_of(tokenizer, pieces):
        shown += stream.push(token)
        assert cut("".join(pieces), stops).startswith(shown)
        if stream.stopped:
            break


@given(st.lists(st.integers(0, 383), max_size=20))
def test_any_tokens_give_the_text_that_the_tokenizer_gives_but_for_a_broken_end(tokenizer, tokens):
    shown, _ = streamed(tokenizer, tokens, [])
    whole = tokenizer.decode(tokens, skip_special_tokens=True)
    assert whole.startswith(shown)
    assert set(whole[len(shown) :]) <= {"\ufffd"}


def test_a_character_of_several_tokens_is_shown_whole(tokenizer: Tokenizer):
    tokens = tokens_of(tokenizer, ["🦙"])
    assert len(tokens) == 4
    stream = TextStream(tokenizer, [])
    assert [stream.push(token) for token in tokens] == ["", "", "", "🦙"]


def test_only_what_may_begin_a_stop_string_is_held_back(tokenizer: Tokenizer):
    stream = TextStream(tokenizer, ["\nInput:"])
    pieces = [stream.push(token) for text in ("yes", "\n", "I", "f") for token in tokens_of(tokenizer, [text])]
    assert "".join(pieces[:-3]) == "yes"
    assert pieces[-3:] == ["", "", "\nIf"]
    assert not stream.stopped


def test_special_tokens_are_no_text(tokenizer: Tokenizer):
    assert streamed(tokenizer, [1, *tokens_of(tokenizer, ["yes"]), 2], []) == ("yes", False)


def test_nothing_may_come_after_a_stop(tokenizer: Tokenizer):
    stream = TextStream(tokenizer, ["a"])
    [token] = tokens_of(tokenizer, ["a"])
    assert stream.push(token) == ""
    with pytest.raises(AssertionError):
        stream.push(token)


def test_bytes_that_are_no_text_do_not_end_the_answer():
    """As a tokenizer with byte fallback (Llama 2, Mistral) may write them."""
    tokenizer = Tokenizer(BPE({"<0x0A>": 0, "<0xE2>": 1, "a": 2, "b": 3}, []))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    shown, _ = streamed(tokenizer, [0, 1, 2, 3, 1, 0, 2], [])
    assert shown.endswith("a") and "ab" in shown
