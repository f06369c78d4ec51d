"""What the engine keeps of contexts: nothing of others, no more than it may, and no work twice."""

import random
import threading
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from transformers import PreTrainedModel

from manyicl_core.inference import prefix_files, prefix_store
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles
from manyicl_core.inference.requests import ContextTooLarge, Generation
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.conftest import MakeAdapter, load_tiny
from tests.unit.inference.driving import SHOWN, Driven, counted
from tests.unit.inference.greedy import is_greedy, plain_greedy

TOKENS = tuple(3 + (5 * number * number) % 380 for number in range(900))


def request(context: int, *query: int, **changes: object) -> Generation:
    """Behind the first ``context`` of some tokens."""
    asked = Generation(
        adapter=None,
        prompt=(*TOKENS[:context], *(query or (10,))),
        prefix_tokens=context,
        max_tokens=3,
        sampling=SHOWN,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


def cached(engine: Driven, asked: Generation) -> int:
    return engine.answer(asked)[1].cached_tokens


@pytest.fixture
def engine(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path) -> Driven:
    return Driven(model, vocabulary, tmp_path)


def test_a_longer_context_extends_the_longest_shorter_one(engine: Driven, plain: PreTrainedModel):
    assert cached(engine, request(100)) == 0
    assert cached(engine, request(600)) == 0, "it goes on where chunks of 128 tokens begin"
    assert cached(engine, request(900)) == 512
    assert cached(engine, request(400)) == 384, "cut from the longer one"
    ticket = engine.submit(request(900, 20, 21))
    engine.finish()
    assert engine.tokens(ticket) == plain_greedy(plain, (*TOKENS, 20, 21), 3)


def test_only_the_tokens_that_are_new_are_run(engine: Driven):
    for asked, run in (
        (request(300), 300),
        (request(300, 20, 21), 0),
        (request(900), 900 - 256),
        (request(900, salt="another tenant"), 900),
        (request(200), 200 - 128),
    ):
        before = counted("compiled")
        engine.answer(asked)
        assert counted("compiled") - before == run


def test_tenants_and_models_share_no_context(engine: Driven, make_adapter: MakeAdapter):
    adapter = engine.stored(make_adapter(1))
    places = [{}, {"salt": "a"}, {"salt": "b"}, {"adapter": adapter}, {"adapter": adapter, "salt": "a"}]
    for changes in places:
        assert cached(engine, request(200, **changes)) == 0
    for changes in places:
        assert cached(engine, request(200, **changes)) == 200
        assert cached(engine, request(220, **changes)) == 128


def test_contexts_of_many_stay_within_the_budget_and_answers_stay_right(
    model: LanguageModel, vocabulary: Vocabulary, plain: PreTrainedModel, tmp_path: Path
):
    rng = random.Random(1)
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=500 * model.bytes_a_token)
    tickets = []
    for _ in range(40):
        context = rng.choice([50, 100, 200, 300, 450])
        tickets.append(engine.submit(request(context, rng.randrange(3, 384), salt=rng.choice("abc"))))
        for _ in range(rng.randrange(6)):
            engine.step()
            assert engine.prefixes.size_bytes <= engine.prefixes.budget_bytes
    while engine.step():
        assert engine.prefixes.size_bytes <= engine.prefixes.budget_bytes
    for ticket in tickets:
        assert is_greedy(plain, ticket.request.prompt, engine.tokens(ticket), 3)


def test_a_context_waits_until_those_in_use_leave_room(model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path):
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=150 * model.bytes_a_token)
    using = engine.submit(request(100, max_tokens=30))
    engine.steps(3)
    waits = engine.submit(request(120, salt="other", tenant="other"))
    small = engine.submit(request(40, salt="third", tenant="third"))
    engine.steps(10)
    assert engine.text(small)
    assert not engine.told[waits] and engine.engine.waiting == 1
    assert waits.model is None, "a whole model would not leave memory"
    engine.finish()
    assert engine.text(using) and engine.text(waits)


def test_a_context_larger_than_the_budget_is_refused_with_what_to_do(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=100 * model.bytes_a_token)
    ticket = engine.submit(request(101))
    engine.finish()
    refusal = engine.refusal(ticket)
    assert isinstance(refusal, ContextTooLarge)
    assert "MANYICL_PREFIX_CACHE_BYTES" in refusal.message and "max_shots" in refusal.message
    assert cached(engine, request(100)) == 0
    assert engine.prefixes.size_bytes == engine.prefixes.budget_bytes


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 50])
def test_a_forgotten_context_leaves_memory_and_disk_whatever_is_done_with_it(
    model: LanguageModel, vocabulary: Vocabulary, plain: PreTrainedModel, tmp_path: Path, steps: int
):
    """Before it is compiled it is not known; later its own request is still answered."""
    files = PrefixFiles(tmp_path / "prefixes", 1 << 22, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    ticket = engine.submit(request(900, max_tokens=10))
    for _ in range(steps):
        engine.step()
    engine.engine.forget(PrefixKey(None, "", TOKENS))
    engine.finish()
    files.close()
    assert is_greedy(plain, ticket.request.prompt, engine.tokens(ticket), 10)
    assert (engine.prefixes.size_bytes > 0) == (steps == 0)
    assert (list((tmp_path / "prefixes").iterdir()) != []) == (steps == 0)


def test_contexts_outlive_the_engine_and_answer_the_same(
    tiny_model: Path, vocabulary: Vocabulary, make_adapter: MakeAdapter, tmp_path: Path
):
    def started(base: str = "base") -> tuple[Driven, PrefixFiles]:
        model = LanguageModel(load_tiny(tiny_model))
        files = PrefixFiles(tmp_path / "prefixes", 1 << 22, base, model.device)
        return Driven(model, vocabulary, tmp_path, files=files), files

    engine, files = started()
    adapter = engine.stored(make_adapter(1))
    asked = [request(300), request(300, adapter=adapter), request(600)]
    tickets = [engine.submit(one) for one in asked]
    engine.finish()
    answers = [engine.tokens(ticket) for ticket in tickets]
    files.close()
    engine, files = started()
    again = [engine.submit(one) for one in asked]
    engine.finish()
    assert [engine.deltas(ticket)[-1].cached_tokens for ticket in again] == [300, 300, 600]
    assert [engine.tokens(ticket) for ticket in again] == answers
    assert cached(engine, request(300, salt="other")) == 0
    files.close()
    other, files = started("another base")
    assert cached(other, request(300)) == 0
    files.close()


def test_others_are_answered_while_a_context_is_read_from_the_disk(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = PrefixFiles(tmp_path / "prefixes", 1 << 22, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    assert cached(engine, request(300)) == 0
    files.wait()
    engine.prefixes.shrink()
    may_be_read = threading.Event()
    read = files.read

    def read_late(key: PrefixKey) -> Prefix | None:
        assert may_be_read.wait(30)
        return read(key)

    monkeypatch.setattr(files, "read", read_late)
    behind_it = [engine.submit(request(300)) for _ in range(2)]
    other = engine.submit(request(100))
    while engine.step():
        pass
    assert engine.text(other)
    assert [engine.told[ticket] for ticket in behind_it] == [[], []]
    may_be_read.set()
    engine.finish()
    assert [engine.deltas(ticket)[-1].cached_tokens for ticket in behind_it] == [300, 300]
    files.close()


def test_a_context_that_is_soon_read_from_the_disk_misses_no_pass(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prefix_store, "_READ_SECONDS", 60.0)
    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    asked = [request(length) for length in (100, 200, 300)]
    for one in asked:
        engine.answer(one)
    files.wait()
    engine.prefixes.shrink()
    tickets = [engine.submit(one) for one in asked]
    engine.steps(1)
    assert [len(engine.told[ticket]) for ticket in tickets] == [1, 1, 1], "three, of which two are read at a time"
    files.close()


def test_a_context_that_cannot_be_read_is_compiled(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    engine.answer(request(300))
    files.wait()
    engine.prefixes.shrink()
    with monkeypatch.context() as without_memory:
        without_memory.setattr(prefix_files, "_layers", full)
        before = counted("compiled")
        engine.answer(request(300))
        assert counted("compiled") - before == 300
    files.wait()
    engine.prefixes.shrink()
    assert cached(engine, request(300)) == 300, "it is written once more"
    files.close()


def test_a_longer_context_extends_the_longest_shorter_one_on_the_disk(
    model: LanguageModel, vocabulary: Vocabulary, plain: PreTrainedModel, tmp_path: Path
):
    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    for length in (100, 300, 200):
        engine.answer(request(length))
    engine.answer(request(400, salt="another tenant"))
    files.wait()
    engine.prefixes.shrink()
    before = counted("compiled")
    ticket = engine.submit(request(600))
    engine.finish()
    assert counted("compiled") - before == 600 - 256
    assert engine.deltas(ticket)[0].cached_tokens == 256
    assert engine.tokens(ticket) == plain_greedy(plain, ticket.request.prompt, 3)
    files.close()


def test_what_is_longer_in_memory_is_not_read_from_the_disk(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, files=files)
    engine.answer(request(100))
    files.wait()
    engine.prefixes.shrink()
    engine.answer(request(200, 10, prompt=(*TOKENS[:150], *TOKENS[:51])))
    monkeypatch.setattr(files, "fetch", None)
    assert cached(engine, request(300)) == 128
    files.close()


def test_nothing_is_read_for_what_has_no_place(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=2150 * model.bytes_a_token, files=files)
    engine.answer(request(300))
    files.wait()
    engine.prefixes.shrink()
    compiled = [engine.submit(request(0, prompt=TOKENS[start:])) for start in (10, 20)]
    engine.steps(1)
    reads = Mock(wraps=files.fetch)
    monkeypatch.setattr(files, "fetch", reads)
    waits = engine.submit(request(300, *TOKENS[500:800]))
    engine.steps(1)
    assert waits.waits and not reads.called
    engine.finish()
    assert all(engine.text(ticket) for ticket in [*compiled, waits])
    files.close()


def test_two_contexts_that_take_each_others_memory_do_not_stop_the_engine(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What each goes on from is on the disk, and beside what is in use there is memory for one of those alone."""
    files = PrefixFiles(tmp_path / "prefixes", 1 << 24, "base", model.device)
    engine = Driven(model, vocabulary, tmp_path, budget_bytes=900 * model.bytes_a_token, files=files)
    for salt in "ab":
        engine.answer(request(300, salt=salt))
    files.wait()
    engine.prefixes.shrink()
    using = engine.submit(request(500, max_tokens=30, salt="c"))
    engine.steps(3)
    waiting = [engine.submit(request(600, salt=salt, tenant=salt)) for salt in "ab"]
    reads = Mock(wraps=files.fetch)
    monkeypatch.setattr(files, "fetch", reads)
    engine.steps(1)
    assert 1 < reads.call_count < 20
    engine.finish()
    assert all(engine.text(ticket) for ticket in [using, *waiting])
    files.close()
