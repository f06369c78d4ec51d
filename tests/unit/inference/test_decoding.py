"""Batches behind a shared prefix answer as each query alone would, token for token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.decoding import Sampling, answers, decode
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, compile_prefix
from manyicl_core.method.labels import LabelTree
from tests.unit.inference.greedy import plain_greedy

CONTEXT = tuple(range(40, 75))
QUERIES = [[10, 11, 12], [20], [30, 31, 32, 33, 34, 35, 36, 37], [41, 42], [250, 3, 99]]

tokens = st.integers(3, 383)
token_lists = st.lists(tokens, min_size=1, max_size=12)


def written(steps: Iterator[list[tuple[int, int]]], rows: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for query, token in step:
            found[query].append(token)
    return found


@pytest.mark.parametrize("shots", [0, 1, len(CONTEXT)])
def test_a_ragged_batch_is_decoded_as_the_plain_model_would(
    base_only: LanguageModel, plain: PreTrainedModel, shots: int
):
    context = CONTEXT[:shots]
    free = [plain_greedy(plain, [*context, *query], 16) for query in QUERIES]
    # Stops that come at different places of different rows, so that rows leave the batch one by one.
    stop = frozenset({free[0][4], free[2][9], free[4][0]})
    expected = [plain_greedy(plain, [*context, *query], 16, stop) for query in QUERIES]
    assert len({len(answer) for answer in expected}) > 2

    prefix = compile_prefix(base_only, context)
    assert written(decode(base_only, prefix, QUERIES, 16, stop), len(QUERIES)) == expected
    without_stop = [[token for token in answer if token not in stop] for answer in expected]
    assert answers(base_only, prefix, QUERIES, 16, stop) == without_stop


@settings(max_examples=15)
@given(st.lists(tokens, max_size=12), st.lists(token_lists, min_size=1, max_size=4), st.integers(1, 6), tokens)
def test_any_batch_is_decoded_as_the_plain_model_would(base_only, plain, context, queries, max_tokens, stop):
    prefix = compile_prefix(base_only, tuple(context))
    expected = [plain_greedy(plain, [*context, *query], max_tokens, {stop}) for query in queries]
    assert written(decode(base_only, prefix, queries, max_tokens, frozenset({stop})), len(queries)) == expected


def test_one_prefix_serves_many_batches(base_only: LanguageModel):
    prefix = compile_prefix(base_only, CONTEXT)
    first = answers(base_only, prefix, QUERIES, 8, frozenset())
    alone = [answers(base_only, prefix, [query], 8, frozenset())[0] for query in QUERIES]
    assert first == alone == answers(base_only, prefix, QUERIES, 8, frozenset())


def test_no_answer_is_longer_than_asked(base_only: LanguageModel):
    for max_tokens in (1, 5):
        found = answers(base_only, EMPTY_PREFIX, QUERIES, max_tokens, frozenset())
        assert [len(answer) for answer in found] == [max_tokens] * len(QUERIES)


LABELS = ["complaint", "praise", "question", "praise for the lamp"]


def tree_of(labels: list[str], tiny_model: Path) -> LabelTree:
    return LabelTree(load_encoder(tiny_model).answer(label) for label in labels)


label_sets = st.lists(st.sampled_from([*LABELS, "comply", "a", "?", "Überraschung", "x y z"]), min_size=2, unique=True)


@settings(max_examples=20)
@given(label_sets, token_lists, st.sampled_from([Sampling(), Sampling(temperature=2.0, seed=1)]))
def test_an_answer_is_always_one_of_the_labels(base_only, tokenizer, tiny_model, labels, query, sampling):
    stop = load_encoder(tiny_model).stop
    steps = decode(
        base_only, EMPTY_PREFIX, [query, CONTEXT], 200, frozenset({stop}), tree_of(labels, tiny_model), sampling
    )
    for answer in written(steps, 2):
        assert answer[-1] == stop
        assert tokenizer.decode(answer) in {f" {label}\n" for label in labels}


def test_among_labels_the_most_likely_next_token_is_taken(
    base_only: LanguageModel, plain: PreTrainedModel, tiny_model: Path
):
    stop = load_encoder(tiny_model).stop
    labels = tree_of(LABELS, tiny_model)
    expected = [plain_greedy(plain, [*CONTEXT, *query], 200, {stop}, labels) for query in QUERIES]
    assert len({tuple(answer) for answer in expected}) > 1, "the queries do not all have the same answer"
    prefix = compile_prefix(base_only, CONTEXT)
    assert written(decode(base_only, prefix, QUERIES, 200, frozenset({stop}), labels), len(QUERIES)) == expected


def test_a_label_longer_than_max_tokens_is_cut(base_only: LanguageModel):
    labels = LabelTree([[5, 6, 7, 8, 1], [9, 6, 7, 8, 1]])
    [answer] = answers(base_only, EMPTY_PREFIX, [[20]], 3, frozenset({1}), labels)
    assert answer in ([5, 6, 7], [9, 6, 7])


def choices_on_the_way(labels: list[list[int]], answer: list[int]) -> int:
    """How often the model is asked for an answer: at its start, and wherever labels part after that."""
    following = [
        {label[length] for label in labels if label[:length] == answer[:length]} for length in range(len(answer))
    ]
    return 1 + sum(len(tokens) > 1 for tokens in following[1:])


@pytest.mark.parametrize(
    "labels",
    [
        [[5, 6, 7, 8, 1], [9, 6, 7, 8, 1]],
        [[5, 6, 7, 8, 1], [5, 6, 7, 9, 1]],
        [[5, 6, 7, 8, 1]],
        [[5, 1], [5, 6, 1], [5, 6, 7, 1], [8, 9, 1]],
    ],
)
def test_tokens_without_a_choice_need_no_model_call(
    base_only: LanguageModel, monkeypatch: pytest.MonkeyPatch, labels: list[list[int]]
):
    rows: list[int] = []
    hidden_states = LanguageModel.hidden_states

    def counted(self: LanguageModel, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(tokens))
        return hidden_states(self, tokens, *rest)

    monkeypatch.setattr(LanguageModel, "hidden_states", counted)
    steps = decode(base_only, EMPTY_PREFIX, QUERIES, 20, frozenset({1}), LabelTree(labels))
    asked = [choices_on_the_way(labels, answer) for answer in written(steps, len(QUERIES))]
    assert rows == [sum(count > call for count in asked) for call in range(max(asked))]


def test_the_same_seed_samples_the_same_answer_and_another_seed_another(base_only: LanguageModel):
    def sample(seed: int | None) -> list[list[int]]:
        sampling = Sampling(temperature=1.5, seed=seed)
        return written(decode(base_only, EMPTY_PREFIX, QUERIES, 8, frozenset(), sampling=sampling), len(QUERIES))

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)
    assert sample(None) != sample(None)


def test_a_tiny_nucleus_or_temperature_is_greedy(base_only: LanguageModel):
    greedy = answers(base_only, EMPTY_PREFIX, QUERIES, 8, frozenset())
    for sampling in (Sampling(temperature=2.0, top_p=1e-6, seed=1), Sampling(temperature=1e-4, seed=1)):
        steps = decode(base_only, EMPTY_PREFIX, QUERIES, 8, frozenset(), sampling=sampling)
        assert written(steps, len(QUERIES)) == greedy
