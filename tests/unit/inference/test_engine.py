"""One request after the other: contexts compiled once, answers piece by piece, and why they ended."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.answer import Sampling
from manyicl_core.inference.decoding import LONGEST_ROW
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.requests import Choices, Delta, Generation, PromptLogprobs, UnknownAdapter
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.method.labels import LabelTree
from tests.tiny_model import MAX_POSITIONS
from tests.unit.inference.conftest import MakeAdapter, save_whole_model
from tests.unit.inference.driving import CONTEXT, SHOWN, Driven
from tests.unit.inference.greedy import plain_greedy

REQUEST = Generation(adapter=None, prompt=(*CONTEXT, 10, 11, 12), prefix_tokens=len(CONTEXT), max_tokens=12)
LONG = tuple(3 + (7 * number * number) % 380 for number in range(700))


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path)


def test_an_answer_is_the_plain_models_and_ends_at_its_length(
    engine: Driven, plain: PreTrainedModel, tokenizer: Tokenizer
):
    expected = tokenizer.decode(plain_greedy(plain, REQUEST.prompt, 12))
    text, last = engine.answer(REQUEST)
    assert text == expected
    assert (last.finish_reason, last.completion_tokens) == ("length", 12)
    assert engine.engine.max_tokens == MAX_POSITIONS


def test_an_answer_comes_piece_by_piece(engine: Driven):
    ticket = engine.submit(REQUEST)
    engine.finish()
    assert [delta.completion_tokens for delta in engine.deltas(ticket)] == list(range(1, 13))


@pytest.mark.parametrize("prefix_tokens", [0, 5, len(CONTEXT), len(REQUEST.prompt), 1000])
def test_wherever_the_context_is_said_to_end_the_answer_is_the_same(engine: Driven, prefix_tokens: int):
    text, _ = engine.answer(REQUEST)
    assert engine.answer(replace(REQUEST, prefix_tokens=prefix_tokens))[0] == text


def test_a_context_is_compiled_once_for_all_its_queries(engine: Driven):
    assert engine.answer(REQUEST)[1].cached_tokens == 0
    assert engine.answer(REQUEST)[1].cached_tokens == len(CONTEXT)
    assert engine.answer(replace(REQUEST, prompt=(*CONTEXT, 20)))[1].cached_tokens == len(CONTEXT)
    begins_alike = replace(REQUEST, prompt=(*LONG[:300], 20, 21), prefix_tokens=300)
    assert engine.answer(begins_alike)[1].cached_tokens == 0
    begins_alike = replace(begins_alike, prompt=(*LONG[:299], 20, 20, 21))
    assert engine.answer(begins_alike)[1].cached_tokens == 256, "what is new begins where chunks begin"
    assert engine.answer(replace(REQUEST, prefix_tokens=0))[1].cached_tokens == 0


def test_an_adapter_never_answers_from_the_bases_context(engine: Driven, make_adapter: MakeAdapter):
    adapter = engine.stored(make_adapter(1))
    base, _ = engine.answer(REQUEST)
    tuned, last = engine.answer(replace(REQUEST, adapter=adapter))
    assert last.cached_tokens == 0
    assert tuned != base
    again, last = engine.answer(replace(REQUEST, adapter=adapter))
    assert (again, last.cached_tokens) == (tuned, len(CONTEXT))
    assert engine.answer(REQUEST)[0] == base


def test_a_whole_model_never_answers_from_the_bases_context(engine: Driven, tiny_model: Path, tmp_path: Path):
    weights = engine.stored(save_whole_model(tiny_model, tmp_path / "whole", 1))
    base, _ = engine.answer(REQUEST)
    tuned, last = engine.answer(replace(REQUEST, adapter=weights))
    assert last.cached_tokens == 0
    assert tuned != base
    again, last = engine.answer(replace(REQUEST, adapter=weights))
    assert (again, last.cached_tokens) == (tuned, len(CONTEXT))
    assert engine.answer(REQUEST)[0] == base


@pytest.mark.parametrize("name", ["0" * 64, "no hash at all"])
def test_an_unknown_adapter_is_refused_and_keeps_nobody_waiting(engine: Driven, name: str):
    refused, answered = engine.submit(replace(REQUEST, adapter=name)), engine.submit(REQUEST)
    engine.finish()
    assert isinstance(engine.refusal(refused), UnknownAdapter)
    assert engine.deltas(answered)[-1].finish_reason == "length"


def test_a_stop_token_ends_the_answer_and_is_not_shown(engine: Driven, plain: PreTrainedModel, tokenizer: Tokenizer):
    written = plain_greedy(plain, REQUEST.prompt, 12)
    stop = written[6]
    before = written[: written.index(stop)]
    text, last = engine.answer(replace(REQUEST, stop_tokens=frozenset({stop})))
    assert tokenizer.decode(before).startswith(text)
    assert (last.finish_reason, last.completion_tokens) == ("stop", len(before) + 1)


def test_a_stop_text_ends_the_answer_wherever_tokens_begin_and_is_not_shown(engine: Driven):
    whole, _ = engine.answer(REQUEST)
    stops = {whole[start : start + length] for length in (1, 2, 3, 5) for start in range(1, len(whole) - length)}
    tickets = {stop: engine.submit(replace(REQUEST, stop_texts=(stop,))) for stop in stops}
    engine.finish()
    for stop, ticket in tickets.items():
        assert engine.text(ticket) == whole[: whole.index(stop)]
        assert engine.deltas(ticket)[-1].finish_reason == "stop"
    assert engine.answer(replace(REQUEST, stop_texts=(whole[2:5],)))[1].completion_tokens < 12


def test_a_row_that_a_stop_text_ended_is_free(engine: Driven):
    whole, _ = engine.answer(REQUEST)
    engine.answer(replace(REQUEST, stop_texts=(whole[2],), max_tokens=1000))
    assert not engine.step()


def test_a_closed_choice_is_answered_with_one_of_its_texts(engine: Driven, tiny_model: Path):
    encoder = load_encoder(tiny_model)
    labels = ["complaint", "praise", "question"]
    request = replace(
        REQUEST,
        max_tokens=100,
        stop_tokens=frozenset({encoder.stop}),
        guide=Choices(LabelTree(encoder.answer(label) for label in labels)),
    )
    text, last = engine.answer(request)
    assert text in {f" {label}" for label in labels}
    assert last.finish_reason == "stop"
    assert last.completion_tokens == len(encoder.answer(text))


def test_several_answers_are_numbered_and_the_first_is_the_one_that_comes_alone(engine: Driven):
    sampling = Sampling(temperature=1.5, seed=11, logprobs=0)
    alone = engine.submit(replace(REQUEST, sampling=sampling))
    engine.finish()
    ticket = engine.submit(replace(REQUEST, sampling=sampling, n=5))
    engine.finish()
    found = [tuple(engine.tokens(ticket, index)) for index in range(5)]
    assert list(found[0]) == engine.tokens(alone)
    assert len(set(found)) == 5


@pytest.mark.parametrize("prefix_tokens", [0, 30, 500])
def test_a_long_query_is_answered_as_by_the_plain_model(engine: Driven, plain: PreTrainedModel, prefix_tokens: int):
    assert len(LONG) - prefix_tokens > LONGEST_ROW or prefix_tokens == 500
    request = Generation(adapter=None, prompt=LONG, prefix_tokens=prefix_tokens, max_tokens=5, sampling=SHOWN)
    for cached in (0, prefix_tokens):
        ticket = engine.submit(request)
        engine.finish()
        assert engine.tokens(ticket) == plain_greedy(plain, LONG, 5)
        assert engine.deltas(ticket)[-1].cached_tokens == cached


@torch.no_grad()
def plain_logprobs(plain: PreTrainedModel, prompt: tuple[int, ...]) -> torch.Tensor:
    return plain(input_ids=torch.tensor([prompt])).logits[0].log_softmax(dim=-1)


@pytest.mark.parametrize("length", [1, 2, 38, 700])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_an_echoed_prompt_has_the_plain_models_log_probabilities(
    engine: Driven, plain: PreTrainedModel, length: int, max_tokens: int
):
    prompt = LONG[:length]
    request = Generation(
        adapter=None, prompt=prompt, prefix_tokens=20, max_tokens=max_tokens, sampling=Sampling(logprobs=3), echo=True
    )
    engine.answer(replace(request, echo=False, max_tokens=1))  # its context is compiled, and is of no use
    ticket = engine.submit(request)
    engine.finish()
    [told, *_] = engine.told[ticket]
    assert isinstance(told, PromptLogprobs)
    expected = plain_logprobs(plain, prompt)
    assert [entry.token for entry in told.logprobs] == list(prompt[1:])
    for position, entry in enumerate(told.logprobs):
        assert entry.logprob == pytest.approx(float(expected[position, entry.token]), abs=1e-4)
        best = expected[position].topk(3)
        assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert engine.tokens(ticket) == plain_greedy(plain, prompt, max_tokens)


def test_the_log_probabilities_of_an_answer_are_the_plain_models(engine: Driven, plain: PreTrainedModel):
    ticket = engine.submit(replace(REQUEST, sampling=Sampling(logprobs=2)))
    engine.finish()
    written = plain_greedy(plain, REQUEST.prompt, 12)
    expected = plain_logprobs(plain, (*REQUEST.prompt, *written))[len(REQUEST.prompt) - 1 :]
    entries = [entry for delta in engine.deltas(ticket) for entry in delta.logprobs]
    assert [entry.token for entry in entries] == written
    for entry, row in zip(entries, expected, strict=False):
        assert entry.logprob == pytest.approx(float(row[entry.token]), abs=1e-4)
        assert entry.top[0] == (entry.token, entry.logprob)
        assert [token for token, _ in entry.top] == row.topk(2).indices.tolist()


def test_echo_without_an_answer_ends_every_choice(engine: Driven):
    request = Generation(adapter=None, prompt=CONTEXT, max_tokens=0, n=3, echo=True)
    ticket = engine.submit(request)
    engine.finish()
    [told, *ends] = engine.told[ticket]
    assert isinstance(told, PromptLogprobs)
    assert [(end.index, end.finish_reason) for end in ends if isinstance(end, Delta)] == [
        (0, "length"),
        (1, "length"),
        (2, "length"),
    ]


def test_long_prompts_without_a_context_share_the_memory_of_contexts(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    prompts = [tuple(3 + (5 * number * number + offset) % 380 for number in range(700)) for offset in range(3)]
    budget = 1500 * model.bytes_a_token
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=budget)
    tickets = [engine.submit(Generation(adapter=None, prompt=prompt, max_tokens=60)) for prompt in prompts]
    together = 0
    while engine.step():
        assert engine.prefixes.size_bytes <= budget
        together = max(together, sum(bool(ticket.set_aside) for ticket in tickets))
    assert together == 2
    assert all(engine.deltas(ticket)[-1].finish_reason for ticket in tickets)
    assert engine.prefixes.size_bytes == 0
    # The longest of all is answered too, alone.
    longer = engine.submit(Generation(adapter=None, prompt=tuple([5] * 1800), max_tokens=2))
    engine.finish()
    assert engine.deltas(longer)[-1].finish_reason
