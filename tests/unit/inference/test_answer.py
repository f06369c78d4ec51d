"""How the next token is chosen, from logits that are known."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.inference.answer import GREEDY, Answer, Sampling
from manyicl_core.inference.guides import LabelGuide
from manyicl_core.method.labels import LabelTree

PROBABILITIES = [0.15, 0.5, 0.05, 0.3]
LOGITS = torch.tensor(PROBABILITIES).log()
DRAWS = 400


def drawn(sampling: Sampling, labels: LabelTree | None = None, written: tuple[int, ...] = ()) -> Counter[int]:
    """What many answers of one request choose after what they have ``written``."""
    counts: Counter[int] = Counter()
    for number in range(DRAWS):
        guide = LabelGuide(labels) if labels else None
        answer = Answer(sampling, 10, frozenset(), guide, number, written=list(written))
        counts[answer.push(LOGITS)[0]] += 1
    return counts


def test_greedy_takes_the_most_likely_token():
    assert drawn(GREEDY) == {1: DRAWS}


def test_tokens_come_as_often_as_they_are_likely():
    counts = drawn(Sampling(temperature=1.0, seed=0))
    for token, probability in enumerate(PROBABILITIES):
        assert counts[token] / DRAWS == pytest.approx(probability, abs=0.06)


def test_a_high_temperature_evens_out_and_a_low_one_sharpens():
    counts = {temperature: drawn(Sampling(temperature=temperature, seed=0)) for temperature in (0.3, 1.0, 10.0)}
    assert counts[0.3][1] > counts[1.0][1] > counts[10.0][1]
    assert min(counts[10.0].values()) > DRAWS / 8


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 5e-324])
def test_however_low_the_temperature_the_best_token_is_drawn(temperature: float):
    assert drawn(Sampling(temperature=temperature, seed=0)) == {1: DRAWS}


@pytest.mark.parametrize("temperature", [1e6, 1e9])
def test_however_high_the_temperature_only_labels_are_drawn(temperature: float):
    assert set(drawn(Sampling(temperature=temperature, seed=0), LabelTree([[0], [3]]))) == {0, 3}


@pytest.mark.parametrize(
    ("top_p", "nucleus"), [(0.3, {1}), (0.49, {1}), (0.6, {1, 3}), (0.9, {0, 1, 3}), (1.0, {0, 1, 2, 3})]
)
def test_only_the_fewest_tokens_that_make_up_top_p_are_drawn(top_p: float, nucleus: set[int]):
    assert set(drawn(Sampling(temperature=1.0, top_p=top_p, seed=0))) == nucleus


def test_sampling_among_labels_keeps_their_proportions():
    counts = drawn(Sampling(temperature=1.0, seed=0), LabelTree([[0], [3]]))
    assert set(counts) == {0, 3}
    assert counts[3] / DRAWS == pytest.approx(2 / 3, abs=0.06)


def test_a_presence_penalty_counts_once_and_a_frequency_penalty_every_time():
    # The best token leads the next one by log(5/3) = 0.51.
    for sampling, written, chosen in (
        (Sampling(presence_penalty=0.5), (1,), 1),
        (Sampling(presence_penalty=0.6), (1,), 3),
        (Sampling(presence_penalty=0.5), (1, 1), 1),
        (Sampling(frequency_penalty=0.3), (1,), 1),
        (Sampling(frequency_penalty=0.3), (1, 1), 3),
        (Sampling(frequency_penalty=-2.0), (2, 2), 2),
        (Sampling(presence_penalty=2.0, frequency_penalty=2.0), (), 1),
    ):
        assert drawn(sampling, written=written) == {chosen: DRAWS}, (sampling, written)


def test_a_bias_makes_a_token_certain_or_impossible():
    assert drawn(Sampling(temperature=1.0, seed=0, logit_bias=((2, 100.0),))) == {2: DRAWS}
    assert drawn(Sampling(logit_bias=((1, -100.0),))) == {3: DRAWS}
    banned = drawn(Sampling(temperature=1.0, seed=0, logit_bias=((1, -100.0), (3, -100.0))))
    assert set(banned) == {0, 2}


def test_no_bias_lets_a_token_out_of_the_labels():
    assert drawn(Sampling(logit_bias=((1, 100.0),)), LabelTree([[0], [3]])) == {3: DRAWS}


@given(st.lists(st.floats(-30, 30, width=32), min_size=8, max_size=8), st.integers(0, 8), st.sampled_from([0.0, 1.0]))
def test_the_log_probabilities_are_those_of_the_model_whatever_is_done_to_choose(values, top, temperature):
    logits = torch.tensor(values)
    sampling = Sampling(temperature=temperature, seed=1, presence_penalty=1.0, logit_bias=((3, 2.0),), logprobs=top)
    answer = Answer(sampling, 2, frozenset(), written=[5])
    kept = logits.clone()
    [token] = answer.push(logits)
    assert torch.equal(logits, kept)
    [told] = answer.logprobs
    expected = logits.log_softmax(dim=0)
    assert (told.token, told.logprob) == (token, pytest.approx(float(expected[token]), abs=1e-5))
    ranked = expected.sort(descending=True).values[:top].tolist()
    assert [value for _, value in told.top] == pytest.approx(ranked, abs=1e-5)
    assert len({other for other, _ in told.top}) == top
    for other, value in told.top:
        assert value == pytest.approx(float(expected[other]), abs=1e-5)


def test_a_token_without_a_choice_is_certain():
    answer = Answer(Sampling(logprobs=1), 10, frozenset({2}), LabelGuide(LabelTree([[1, 3, 2], [0, 2]])))
    assert answer.push(LOGITS) == [1, 3, 2]
    assert [(entry.token, entry.logprob) for entry in answer.logprobs] == [
        (1, pytest.approx(float(LOGITS[1]))),
        (3, 0.0),
        (2, 0.0),
    ]
    assert answer.finish == "stop"


def test_an_answer_ends_with_a_stop_token_a_whole_label_or_its_length():
    for stop, guide, max_tokens, finish in (
        (frozenset({1}), None, 1, "stop"),
        (frozenset({2}), None, 1, "length"),
        (frozenset({2}), None, 2, None),
        (frozenset({2}), LabelGuide(LabelTree([[1], [0]])), 2, "stop"),
    ):
        answer = Answer(GREEDY, max_tokens, stop, guide)
        answer.push(LOGITS)
        assert (answer.written, answer.finish) == ([1], finish)


def test_answers_of_one_seed_differ_and_the_first_is_always_the_same():
    def tokens(seed: int | None, number: int) -> list[int]:
        answer = Answer(Sampling(temperature=1.0, seed=seed), 20, frozenset(), number=number)
        while answer.finish is None:
            answer.push(LOGITS)
        return answer.written

    assert tokens(7, 0) == tokens(7, 0)
    assert len({tuple(tokens(7, number)) for number in range(8)}) == 8
    assert len({tuple(tokens(None, 0)) for _ in range(8)}) == 8
    for seed in (-1, -(2**63), 2**64):
        assert tokens(seed, 0) == tokens(seed, 0)
    nearby = [tuple(tokens(seed, number)) for seed in range(8) for number in range(8)]
    assert len(set(nearby)) == len(nearby), "another seed gives no answer of this one in another place"
