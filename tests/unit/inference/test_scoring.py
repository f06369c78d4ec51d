"""Label scores in two stages are the log-probabilities of prompt and label as one text."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import PreTrainedModel

from manyicl_core.inference import scoring as scoring_module
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX
from manyicl_core.inference.requests import Generation, LabelScoring
from manyicl_core.inference.scoring import LabelQuery, label_scores
from manyicl_core.inference.slots import Slots
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter, load_tiny, save_whole_model
from tests.unit.inference.driving import CONTEXT, Driven

ADAPTERS = [None, "one", "two"]
STOP = 4
LABELS = {
    "one token each": [[5], [6], [300]],
    "one label": [[5, 6, STOP]],
    "first tokens in common": [[5, STOP], [5, 6, STOP], [5, 6, 7, STOP], [5, 6, 8, 9, 10, STOP]],
    "of all lengths": [[5], [6, STOP], [7, 8, 9, 10, 11, 12, 13, 14, STOP], [15, 15, STOP]],
    "one twice": [[5, 6, STOP], [5, 6, STOP]],
    "a start of another": [[5, 6], [5, 6, 7], [5]],
    "three hundred": [[5 + number % 300, 7 + number // 2, STOP][number % 2 :] for number in range(300)],
}


@torch.no_grad()
def naive_scores(model: torch.nn.Module, prompt: list[int], labels: list[list[int]]) -> list[float]:
    """Of every label by a whole pass over the prompt and it."""
    scores = []
    for label in labels:
        logprobs = model(input_ids=torch.tensor([[*prompt, *label]])).logits[0].log_softmax(dim=-1)
        scores.append(sum(float(logprobs[len(prompt) - 1 + index, token]) for index, token in enumerate(label)))
    return scores


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, make_adapter: MakeAdapter) -> LanguageModel:
    model = LanguageModel(load_tiny(tiny_model))
    model.attach("one", make_adapter(1))
    model.attach("two", make_adapter(2))
    return model


@pytest.fixture(scope="module")
def plain_tuned(
    plain: PreTrainedModel, tiny_model: Path, make_adapter: MakeAdapter
) -> dict[str | None, torch.nn.Module]:
    models: dict[str | None, torch.nn.Module] = {None: plain}
    for seed, name in enumerate(ADAPTERS[1:], start=1):
        models[name] = PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(seed))).eval()
    return models


@pytest.mark.parametrize("context", [0, 1, len(CONTEXT)])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_scores_are_those_of_whole_passes(
    untuned: TunedModel, plain: PreTrainedModel, context: int, labels: list[list[int]]
):
    prefix = compile_prefix(untuned, CONTEXT[:context]) if context else EMPTY_PREFIX
    [found] = label_scores(untuned.language_model, [LabelQuery(None, prefix, [10, 11, 12], labels)])
    expected = naive_scores(plain, [*CONTEXT[:context], 10, 11, 12], labels)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_queries_of_any_contexts_adapters_and_labels_are_scored_together(
    tuned: LanguageModel, plain_tuned: dict[str | None, torch.nn.Module], seed: int
):
    rng = random.Random(seed)
    contexts = [tuple(rng.randrange(3, 384) for _ in range(length)) for length in (0, 37, 300)]
    prefixes = {
        (adapter, context): compile_prefix(TunedModel(tuned, adapter), context)
        for adapter in ADAPTERS
        for context in contexts
    }
    queries = []
    for _ in range(12):
        adapter, context = rng.choice(list(prefixes))
        query = [rng.randrange(3, 384) for _ in range(rng.choice([1, 4, 25]))]
        labels = LABELS[rng.choice(["first tokens in common", "of all lengths", "one token each", "one label"])]
        queries.append(LabelQuery(adapter, prefixes[adapter, context], query, labels))
    for query, found in zip(queries, label_scores(tuned, queries), strict=True):
        prompt = [*query.prefix.tokens, *query.query]
        labels = [list(label) for label in query.labels]
        assert found == pytest.approx(naive_scores(plain_tuned[query.adapter], prompt, labels), abs=1e-4)


@settings(max_examples=20)
@given(
    st.lists(st.integers(3, 383), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(3, 383), min_size=1, max_size=5), min_size=1, max_size=6),
)
def test_any_labels_of_any_query_are_scored_as_by_whole_passes(base_only, plain, query, labels):
    [found] = label_scores(base_only, [LabelQuery(None, EMPTY_PREFIX, query, labels)])
    assert found == pytest.approx(naive_scores(plain, query, labels), abs=1e-4)


# Through the engine


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path)


def scoring(prompt: tuple[int, ...], labels: list[list[int]], prefix_tokens: int = 0, adapter: str | None = None):
    return LabelScoring(
        adapter=adapter, prompt=prompt, prefix_tokens=prefix_tokens, labels=tuple(tuple(label) for label in labels)
    )


def test_many_scorings_at_once_are_each_as_if_alone(engine: Driven, plain: PreTrainedModel):
    """More queries and more labels than one batch takes."""
    prompts = [(*CONTEXT, 10 + number) for number in range(70)]
    kinds = ["first tokens in common", "three hundred", "one token each", "of all lengths"]
    asked = [LABELS[kinds[number % 4]] for number in range(70)]
    tickets = [
        engine.submit(scoring(prompt, labels, prefix_tokens=len(CONTEXT)))
        for prompt, labels in zip(prompts, asked, strict=True)
    ]
    engine.finish()
    for number in (0, 1, 2, 3, 41, 68, 69):
        [told] = engine.told[tickets[number]]
        expected = naive_scores(plain, list(prompts[number]), asked[number])
        assert told.scores == pytest.approx(expected, abs=1e-4)  # type: ignore[union-attr]
    assert all(len(engine.told[ticket]) == 1 for ticket in tickets)


def test_labels_are_scored_in_passes_of_bounded_memory_between_others_steps(
    engine: Driven, plain: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring_module, "_TAIL_PLACES", 200)
    places = []
    copy = Slots.copy

    def counting(slots: Slots, numbers: list[int], room: int) -> Slots:
        copied = copy(slots, numbers, room)
        places.append(len(numbers) * (max(copied.lengths) + room))
        return copied

    monkeypatch.setattr(Slots, "copy", counting)
    prompt = tuple(range(40, 80))
    labels = LABELS["three hundred"]
    left, stays = (engine.submit(scoring(prompt, labels)) for _ in range(2))
    writes = engine.submit(Generation(adapter=None, prompt=prompt, max_tokens=5))
    engine.steps(8)
    assert engine.deltas(writes)[-1].finish_reason and not engine.told[stays]
    left.cancelled = True
    engine.finish()
    [told] = engine.told[stays]
    assert told.scores == pytest.approx(naive_scores(plain, list(prompt), labels), abs=1e-4)  # type: ignore[union-attr]
    assert not engine.told[left] and len(places) > 20 and max(places) <= 200
    both = [engine.submit(scoring(prompt, labels)) for _ in range(2)]
    engine.steps(2)
    for ticket in both:
        ticket.cancelled = True
    before = len(places)
    engine.finish()
    assert len(places) == before, "nobody waits for them"


def test_a_query_longer_than_a_row_is_scored(engine: Driven, plain: PreTrainedModel):
    prompt = tuple(3 + (7 * number * number) % 380 for number in range(700))
    expected = naive_scores(plain, list(prompt), LABELS["of all lengths"])
    for prefix_tokens, cached in ((0, 0), (100, 0), (100, 100)):
        found = engine.scores(scoring(prompt, LABELS["of all lengths"], prefix_tokens))
        assert found.scores == pytest.approx(expected, abs=1e-4)
        assert found.cached_tokens == cached


def test_a_whole_model_scores_beside_the_base_and_its_adapters(
    engine: Driven, plain: PreTrainedModel, tiny_model: Path, make_adapter: MakeAdapter, tmp_path: Path
):
    whole = save_whole_model(tiny_model, tmp_path / "whole", 1)
    models: dict[str | None, torch.nn.Module] = {
        None: plain,
        engine.stored(whole): load_tiny(whole),
        engine.stored(make_adapter(1)): PeftModel.from_pretrained(load_tiny(tiny_model), str(make_adapter(1))).eval(),
    }
    labels = LABELS["first tokens in common"]
    tickets = {
        name: engine.submit(scoring((*CONTEXT, 10), labels, prefix_tokens=len(CONTEXT), adapter=name))
        for name in models
    }
    engine.finish()
    for name, ticket in tickets.items():
        [told] = engine.told[ticket]
        expected = naive_scores(models[name], [*CONTEXT, 10], labels)
        assert told.scores == pytest.approx(expected, abs=1e-4)  # type: ignore[union-attr]
