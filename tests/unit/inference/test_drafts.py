"""Drafted tokens: what is guessed, and that an answer never depends on it."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.inference.answer import GREEDY, Answer, Sampling
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import LONGEST_ROW, Decoder, Row
from manyicl_core.inference.drafts import History, least_likely_worth
from manyicl_core.inference.guides import LabelGuide
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.requests import Generation
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.method.labels import LabelTree
from tests.unit.inference.driving import Driven

CONTEXT = tuple(range(40, 75))
QUERIES = [[10, 11, 12], [20], [30, 31, 32, 33, 34, 35, 36, 37], [41, 42]]


def drafted(text: list[int], most: int = 8, least_likely: float = 0.0) -> list[int]:
    return History(text, 0).draft(most, least_likely)


def test_what_followed_before_is_drafted():
    assert drafted([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5, 9, 1, 2]
    assert drafted([1, 2, 3, 4, 5, 9, 1, 2], most=3) == [3, 4, 5]
    assert drafted([1, 2, 3]) == []
    assert drafted([1]) == []


def test_the_most_common_continuation_is_drafted():
    assert drafted([7, 1, 5, 7, 2, 6, 7, 2, 5, 7], most=1) == [2]


def test_of_all_places_those_count_where_most_of_the_last_tokens_stood():
    assert drafted([8, 7, 1, 9, 7, 2, 9, 7, 2, 8, 7], most=1) == [1]


def test_unlikely_tokens_are_not_drafted():
    always, mostly = [7, 1] * 9 + [7], [7, 1, 3, 7, 1, 4, 7, 2, 7]
    assert drafted(always, most=2, least_likely=0.75) == [1, 7]
    assert drafted(mostly, most=1, least_likely=0.5) == [1]
    assert drafted(mostly, most=1, least_likely=0.51) == []


def test_text_that_was_added_is_looked_in():
    history = History([1, 2, 3], 3)
    history.add([5, 2])
    assert history.draft(1, 0.0) == [3]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 8))
def test_a_draft_goes_on_as_the_text_did_somewhere(text: list[int], most: int):
    draft = drafted(text, most)
    assert len(draft) <= most
    assert set(pairwise([text[-1], *draft])) <= set(pairwise(text))


def test_the_more_rows_share_a_pass_the_surer_a_draft_must_be():
    worth = [least_likely_worth(rows, "cpu") for rows in (1, 8, 32)]
    assert 0 < worth[0] < worth[1] < worth[2] < 1
    assert least_likely_worth(32, "cuda") < least_likely_worth(32, "cpu")


def rows_behind(prefix: Prefix, length: int) -> list[Row]:
    """Greedy and drawn answers, a closed one, and one with log-probabilities."""
    labels = LabelTree([[5, 6, 7, 8, 1], [9, 6, 7, 8, 1], [5, 6, 9, 1]])
    makes = [
        Answer(GREEDY, length, frozenset()),
        Answer(Sampling(temperature=1.0, seed=3, frequency_penalty=0.5), length, frozenset()),
        Answer(GREEDY, length, frozenset({1}), LabelGuide(labels)),
        Answer(Sampling(logprobs=2), length, frozenset({77})),
    ]
    return [Row(None, prefix, list(query), answer) for query, answer in zip(QUERIES, makes, strict=True)]


def run(model: LanguageModel, rows: list[Row]) -> int:
    """Let all of them finish; how many passes it took."""
    decoder = Decoder(model)
    for row in rows:
        decoder.join(row)
    passes = 0
    while decoder.rows:
        decoder.step()
        passes += 1
    return passes


@pytest.mark.parametrize("right", [0.0, 0.5, 0.9, 1.0])
def test_answers_are_the_same_whatever_is_drafted(untuned: TunedModel, monkeypatch: pytest.MonkeyPatch, right: float):
    length = LONGEST_ROW + 20
    prefix = compile_prefix(untuned, CONTEXT)
    monkeypatch.setattr(History, "draft", lambda *_: [])
    expected = rows_behind(prefix, length)
    assert run(untuned.language_model, expected) == length
    texts = [[*CONTEXT, *query, *row.answer.written] for query, row in zip(QUERIES, expected, strict=True)]

    dice = random.Random(0)

    def draft(self: History, most: int, _: float) -> list[int]:
        """What comes, with a wrong token here and there."""
        so_far = self._tokens[: self._length].tolist()
        [text] = [text for text in texts if text[: len(so_far)] == so_far]
        coming = text[len(so_far) : len(so_far) + max(0, min(most, dice.randrange(9)))]
        return [token if dice.random() < right else 383 - token for token in coming]

    monkeypatch.setattr(History, "draft", draft)
    rows = rows_behind(prefix, length)
    passes = run(untuned.language_model, rows)
    assert [row.answer.written for row in rows] == [row.answer.written for row in expected]
    assert [row.answer.finish for row in rows] == [row.answer.finish for row in expected]
    found, known = rows[3].answer.logprobs, expected[3].answer.logprobs
    assert [entry.token for entry in found] == [entry.token for entry in known]
    assert np.allclose([entry.logprob for entry in found], [entry.logprob for entry in known], atol=1e-4)
    if right:
        assert passes < length * (0.9 if right == 0.5 else 0.5)


def test_a_stop_text_inside_a_draft_ends_the_answer_there(
    base_only: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driven = Driven(base_only, vocabulary, tmp_path)
    asked = Generation(adapter=None, prompt=(*CONTEXT, 20), max_tokens=12, sampling=Sampling(logprobs=0))
    monkeypatch.setattr(History, "draft", lambda *_: [])
    ticket = driven.submit(asked)
    driven.finish()
    pieces = [piece for piece in driven.deltas(ticket) if piece.text.strip()]
    stop = pieces[len(pieces) // 2].text
    tokens = driven.tokens(ticket)
    stopping = Generation(adapter=None, prompt=asked.prompt, max_tokens=12, sampling=asked.sampling, stop_texts=(stop,))
    text, alone = driven.answer(stopping)
    assert alone.completion_tokens < 12

    def draft(self: History, most: int, _: float) -> list[int]:
        return tokens[self._length - len(asked.prompt) :][: max(0, most)]

    monkeypatch.setattr(History, "draft", draft)
    ticket = driven.submit(stopping)
    driven.finish()
    assert driven.text(ticket) == text
    assert driven.deltas(ticket)[-1].completion_tokens == alone.completion_tokens
    assert driven.tokens(ticket) == tokens[: alone.completion_tokens]
