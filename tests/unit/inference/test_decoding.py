"""Batches behind a shared prefix answer as each query alone would, token for token."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.answer import GREEDY, Answer, Sampling
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import LONGEST_ROW, Decoder, Row, answers
from manyicl_core.inference.guides import LabelGuide
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix
from manyicl_core.method.labels import LabelTree
from tests.unit.inference.greedy import is_greedy, plain_greedy

CONTEXT = tuple(range(40, 75))
QUERIES = [[10, 11, 12], [20], [30, 31, 32, 33, 34, 35, 36, 37], [41, 42], [250, 3, 99]]

tokens = st.integers(3, 383)
token_lists = st.lists(tokens, min_size=1, max_size=12)


def joined(
    model: LanguageModel,
    prefix: Prefix,
    queries: list[list[int]],
    max_tokens: int,
    stop: frozenset[int],
    labels: LabelTree | None = None,
    sampling: Sampling = GREEDY,
) -> tuple[Decoder, list[Answer]]:
    """A decoder with a row a query, and the answers that it will write."""
    decoder = Decoder(model)
    made = []
    for number, query in enumerate(queries):
        guide = LabelGuide(labels) if labels else None
        made.append(Answer(sampling, max_tokens, stop, guide, number))
        decoder.join(Row(None, prefix, list(query), made[-1]))
    return decoder, made


def written(
    model: LanguageModel,
    prefix: Prefix,
    queries: list[list[int]],
    max_tokens: int,
    stop: frozenset[int],
    labels: LabelTree | None = None,
    sampling: Sampling = GREEDY,
) -> list[list[int]]:
    """The answers' tokens, stop tokens included."""
    decoder, made = joined(model, prefix, queries, max_tokens, stop, labels, sampling)
    told: dict[int, list[int]] = {id(answer): [] for answer in made}
    while decoder.rows:
        for row, new in decoder.step():
            assert new
            told[id(row.answer)] += new
    assert [told[id(answer)] for answer in made] == [answer.written for answer in made]
    return [answer.written for answer in made]


@pytest.mark.parametrize("shots", [0, 1, len(CONTEXT)])
def test_a_ragged_batch_is_decoded_as_the_plain_model_would(untuned: TunedModel, plain: PreTrainedModel, shots: int):
    context = CONTEXT[:shots]
    free = [plain_greedy(plain, [*context, *query], 16) for query in QUERIES]
    # Stops that come at different places of different rows, so that rows leave the batch one by one.
    stop = frozenset({free[0][4], free[2][9], free[4][0]})
    expected = [plain_greedy(plain, [*context, *query], 16, stop) for query in QUERIES]
    assert len({len(answer) for answer in expected}) > 2

    prefix = compile_prefix(untuned, context)
    assert written(untuned.language_model, prefix, QUERIES, 16, stop) == expected
    without_stop = [[token for token in answer if token not in stop] for answer in expected]
    assert answers(untuned, prefix, QUERIES, 16, stop) == without_stop


@settings(max_examples=15)
@given(st.lists(tokens, max_size=12), st.lists(token_lists, min_size=1, max_size=4), st.integers(1, 6), tokens)
def test_any_batch_is_decoded_as_the_plain_model_would(untuned, plain, context, queries, max_tokens, stop):
    prefix = compile_prefix(untuned, tuple(context))
    expected = [plain_greedy(plain, [*context, *query], max_tokens, {stop}) for query in queries]
    assert written(untuned.language_model, prefix, queries, max_tokens, frozenset({stop})) == expected


def test_answers_longer_than_a_row_may_be_go_on_as_before(untuned: TunedModel, plain: PreTrainedModel):
    prefix = compile_prefix(untuned, CONTEXT)
    lengths = [LONGEST_ROW + 40, 3, LONGEST_ROW + 5]
    decoder = Decoder(untuned.language_model)
    made = [Answer(GREEDY, length, frozenset()) for length in lengths]
    for query, answer in zip(QUERIES, made, strict=False):
        decoder.join(Row(None, prefix, list(query), answer))
    while decoder.rows:
        decoder.step()
    for query, answer in zip(QUERIES, made, strict=False):
        assert is_greedy(plain, [*CONTEXT, *query], answer.written, answer.max_tokens)


def test_one_prefix_serves_many_batches(untuned: TunedModel):
    prefix = compile_prefix(untuned, CONTEXT)
    first = answers(untuned, prefix, QUERIES, 8, frozenset())
    alone = [answers(untuned, prefix, [query], 8, frozenset())[0] for query in QUERIES]
    assert first == alone == answers(untuned, prefix, QUERIES, 8, frozenset())


def test_no_answer_is_longer_than_asked(untuned: TunedModel):
    for max_tokens in (1, 5):
        found = answers(untuned, EMPTY_PREFIX, QUERIES, max_tokens, frozenset())
        assert [len(answer) for answer in found] == [max_tokens] * len(QUERIES)


LABELS = ["complaint", "praise", "question", "praise for the lamp"]


def tree_of(labels: list[str], tiny_model: Path) -> LabelTree:
    return LabelTree(load_encoder(tiny_model).answer(label) for label in labels)


label_sets = st.lists(st.sampled_from([*LABELS, "comply", "a", "?", "Überraschung", "x y z"]), min_size=2, unique=True)


@settings(max_examples=20)
@given(label_sets, token_lists, st.sampled_from([GREEDY, Sampling(temperature=2.0, seed=1)]))
def test_an_answer_is_always_one_of_the_labels(base_only, tokenizer, tiny_model, labels, query, sampling):
    stop = load_encoder(tiny_model).stop
    tree = tree_of(labels, tiny_model)
    for answer in written(base_only, EMPTY_PREFIX, [query, list(CONTEXT)], 200, frozenset({stop}), tree, sampling):
        assert answer[-1] == stop
        assert tokenizer.decode(answer) in {f" {label}\n" for label in labels}


def test_among_labels_the_most_likely_next_token_is_taken(
    untuned: TunedModel, plain: PreTrainedModel, tiny_model: Path
):
    stop = load_encoder(tiny_model).stop
    labels = tree_of(LABELS, tiny_model)
    expected = [plain_greedy(plain, [*CONTEXT, *query], 200, {stop}, labels) for query in QUERIES]
    assert len({tuple(answer) for answer in expected}) > 1, "the queries do not all have the same answer"
    prefix = compile_prefix(untuned, CONTEXT)
    assert written(untuned.language_model, prefix, QUERIES, 200, frozenset({stop}), labels) == expected


def test_rows_with_labels_and_free_ones_share_a_batch(untuned: TunedModel, plain: PreTrainedModel):
    labels = LabelTree([[5, 6, 7, 8, 1], [9, 6, 7, 8, 1], [5, 6, 9, 1]])
    decoder, free = joined(untuned.language_model, EMPTY_PREFIX, QUERIES[:2], 12, frozenset())
    closed = [Answer(GREEDY, 12, frozenset({1}), LabelGuide(labels)) for _ in QUERIES[2:]]
    for query, answer in zip(QUERIES[2:], closed, strict=True):
        decoder.join(Row(None, EMPTY_PREFIX, list(query), answer))
    while decoder.rows:
        decoder.step()
    assert [answer.written for answer in free] == [plain_greedy(plain, query, 12) for query in QUERIES[:2]]
    assert [answer.written for answer in closed] == [
        plain_greedy(plain, query, 12, {1}, labels) for query in QUERIES[2:]
    ]


def test_a_label_longer_than_max_tokens_is_cut(untuned: TunedModel):
    labels = LabelTree([[5, 6, 7, 8, 1], [9, 6, 7, 8, 1]])
    [answer] = answers(untuned, EMPTY_PREFIX, [[20]], 3, frozenset({1}), labels)
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
def test_tokens_without_a_choice_need_no_model_call(base_only: LanguageModel, labels: list[list[int]]):
    decoder, made = joined(base_only, EMPTY_PREFIX, QUERIES, 20, frozenset({1}), LabelTree(labels))
    rows = []
    while decoder.rows:
        rows.append(len(decoder.rows))
        decoder.step()
    asked = [choices_on_the_way(labels, answer.written) for answer in made]
    assert rows == [sum(count > call for count in asked) for call in range(max(asked))]


def test_the_same_seed_samples_the_same_answer_and_another_seed_another(base_only: LanguageModel):
    def sample(seed: int | None, queries: list[list[int]] = QUERIES) -> list[list[int]]:
        sampling = Sampling(temperature=1.5, seed=seed)
        return written(base_only, EMPTY_PREFIX, queries, 8, frozenset(), sampling=sampling)

    assert sample(3) == sample(3)
    assert sample(3)[0] == sample(3, QUERIES[:1])[0], "what others in the batch draw changes nothing"
    assert sample(3) != sample(4)
    assert sample(None) != sample(None)


def test_a_tiny_nucleus_or_temperature_is_greedy(untuned: TunedModel):
    greedy = answers(untuned, EMPTY_PREFIX, QUERIES, 8, frozenset())
    for sampling in (Sampling(temperature=2.0, top_p=1e-6, seed=1), Sampling(temperature=1e-4, seed=1)):
        found = written(untuned.language_model, EMPTY_PREFIX, QUERIES, 8, frozenset(), sampling=sampling)
        assert found == greedy
