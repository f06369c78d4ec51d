"""A request with a seed is answered by the same bits, whatever else the engine does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.inference.answer import Sampling, TokenLogprob
from manyicl_core.inference.decoding import Decoder, Row
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix_files import PrefixFiles
from manyicl_core.inference.requests import Generation, LabelScoring
from manyicl_core.inference.scoring import LabelQuery, Scoring
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter
from tests.unit.inference.driving import Driven

CONTEXT = tuple(3 + (7 * number * number) % 380 for number in range(300))
SEEDED = Generation(
    adapter=None,
    prompt=(*CONTEXT, 10, 11, 12),
    prefix_tokens=len(CONTEXT),
    max_tokens=24,
    sampling=Sampling(temperature=1.0, seed=7, logprobs=0),
    n=2,
)
PLAIN = replace(SEEDED, prompt=SEEDED.prompt[295:], prefix_tokens=0)
OTHERS = replace(SEEDED, sampling=Sampling(temperature=1.0), n=1)
LABELS = LabelScoring(
    adapter=None, prompt=SEEDED.prompt, prefix_tokens=len(CONTEXT), labels=((20, 21, 4), (30, 4)), alone=True
)


@pytest.fixture(scope="module")
def rounded(tiny_model: Path) -> LanguageModel:
    """In bfloat16; so small a model may round alike beside others all the same, so who shares a pass is tested too."""
    return LanguageModel(load_base_model(tiny_model, torch.device("cpu"), torch.bfloat16))


@pytest.fixture
def engine(rounded: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Callable[[], Driven]:
    """Makes engines over one folder of prefixes on the disk: a restarted one."""

    def make() -> Driven:
        files = PrefixFiles(tmp_path / "prefixes", 1 << 30, "tiny", torch.device("cpu"))
        return Driven(rounded, vocabulary, tmp_path, budget_bytes=1 << 24, files=files)

    return make


def written(engine: Driven, request: Generation) -> list[list[TokenLogprob]]:
    ticket = engine.submit(request)
    engine.finish()
    deltas = engine.deltas(ticket)
    return [[entry for delta in deltas if delta.index == index for entry in delta.logprobs] for index in (0, 1)]


def crowd(engine: Driven, adapter: str, count: int) -> None:
    """Others over many contexts and an adapter, of different lengths."""
    for number in range(count):
        prompt = (*CONTEXT[number : 60 + 17 * number], 5, 6, 7 + number)
        other = replace(OTHERS, prompt=prompt, prefix_tokens=len(prompt) - 3, max_tokens=10 + 5 * number)
        engine.submit(replace(other, adapter=adapter if number % 2 else None))


@pytest.mark.parametrize("request_", [SEEDED, PLAIN, replace(SEEDED, sampling=Sampling(seed=1, logprobs=0))])
def test_beside_any_others_it_is_what_it_is_alone(
    engine: Callable[[], Driven], make_adapter: MakeAdapter, request_: Generation
) -> None:
    busy = engine()
    adapter = busy.stored(make_adapter(1))
    alone = written(busy, request_)
    assert alone[0] != alone[1] or not request_.sampling.temperature, "each answer has dice of its own"
    for steps in (0, 1, 3, 7):
        crowd(busy, adapter, 12)
        busy.steps(steps)
        assert written(busy, request_) == alone
        first = busy.submit(replace(request_, n=1))
        busy.finish()
        assert [entry for delta in busy.deltas(first) for entry in delta.logprobs] == alone[0]


def test_however_its_context_came_to_be_it_is_the_same(
    engine: Callable[[], Driven], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    fresh = engine()
    alone = written(fresh, SEEDED)
    assert written(fresh, SEEDED) == alone, "from memory"
    fresh.prefixes.shrink()
    assert written(engine(), SEEDED) == alone, "from the disk"
    for prompt in ((*CONTEXT, *CONTEXT[:90], 9), (*CONTEXT[:201], 9), (*CONTEXT[:120], 9)):
        (tmp_path / "prefixes").rename(tmp_path / f"away-{len(prompt)}")
        other = engine()
        written(other, replace(OTHERS, prompt=prompt, prefix_tokens=len(prompt) - 1, n=2))
        assert written(other, SEEDED) == alone, "going on from another one"
    (tmp_path / "prefixes").rename(tmp_path / "away")
    hurried = engine()
    crowd(hurried, hurried.stored(make_adapter(1)), 12)
    hurried.steps(4)
    assert written(hurried, SEEDED) == alone, "compiled beside answers"


def test_labels_are_scored_the_same_beside_others(engine: Callable[[], Driven], make_adapter: MakeAdapter) -> None:
    busy = engine()
    alone = busy.scores(LABELS).scores
    crowd(busy, busy.stored(make_adapter(1)), 6)
    others = [busy.submit(replace(LABELS, prompt=(*CONTEXT, *range(5, 9 + n)), alone=False)) for n in range(9)]
    ticket = busy.submit(LABELS)
    busy.finish()
    [event] = busy.told[ticket]
    assert getattr(event, "scores", None) == alone
    assert all(len(busy.told[other]) == 1 for other in others)


def test_what_has_a_seed_shares_no_pass(
    engine: Callable[[], Driven], make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int | None]] = []
    step = Decoder.step

    def noted(decoder: Decoder) -> list[tuple[Row, list[int]]]:
        passes.append([row.answer.sampling.seed for row in decoder.rows])
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", noted)
    busy = engine()
    crowd(busy, busy.stored(make_adapter(1)), 12)
    tickets = [busy.submit(replace(PLAIN, sampling=Sampling(temperature=1.0, seed=seed))) for seed in (1, 2)]
    busy.finish()
    assert all(busy.deltas(ticket)[-1].finish_reason is not None for ticket in tickets)
    assert any(len(seeds) > 1 for seeds in passes), "others share theirs"
    assert {len(seeds) for seeds in passes if set(seeds) != {None}} == {1}


def test_labels_with_a_seed_share_no_pass(engine: Callable[[], Driven], monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    made = Scoring.__init__

    def noted(scoring: Scoring, model: LanguageModel, queries: list[LabelQuery]) -> None:
        batches.append([len(query.query) for query in queries])
        made(scoring, model, queries)

    monkeypatch.setattr(Scoring, "__init__", noted)
    busy = engine()
    busy.scores(LABELS)  # the context is there from now on, so all of these wait together
    batches.clear()
    for length in range(4, 10):
        busy.submit(replace(LABELS, prompt=(*CONTEXT, *range(5, 5 + length)), alone=length == 7))
    busy.finish()
    assert sorted(batches) == [[4, 5, 6, 8, 9], [7]]


def test_those_with_seeds_take_turns_and_others_go_on_between(engine: Callable[[], Driven]) -> None:
    busy = engine()
    seeded = [busy.submit(replace(PLAIN, n=1, max_tokens=8)) for _ in range(4)]
    other = busy.submit(replace(OTHERS, prompt=PLAIN.prompt, prefix_tokens=0, max_tokens=8))
    busy.steps(8)
    assert busy.deltas(other)[-1].finish_reason is not None, "it waited for one of them a step"
    assert all(len(busy.told[ticket]) <= 2 for ticket in seeded)
    gone = seeded.pop()
    gone.cancelled = True
    busy.finish()
    assert len({busy.text(ticket) for ticket in seeded}) == 1
