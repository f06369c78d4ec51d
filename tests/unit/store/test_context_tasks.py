"""Tasks of a model behind its calls and contexts: drawn once, the same for every ordinary query."""

import hashlib
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import known_base_models
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.method.contexts import Context, draw_context
from manyicl_core.method.dataset import Row
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.labels import MAX_LABEL_TOKENS
from manyicl_core.method.tasks import Example, Task
from manyicl_core.objects import ArtifactStore, open_store
from manyicl_core.settings import get_settings
from manyicl_core.store.contexts import drawn, sources
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import ANSWER_ROOM, QUERY_ROOM, HostedPrompt, hosted_prompts
from manyicl_core.store.contexts.sources import source_task
from manyicl_core.store.models.service import ServedModel
from manyicl_core.store.tasks.dataset_cache import TASKS
from tests.services import BASE_MODEL
from tests.tiny_model import MAX_POSITIONS
from tests.unit.sample_tasks import numbered_task, task_of

# More demonstrations than fit.
COUNT = numbered_task(400)
SHORT, ORDINARY, LONG = "3", "x" * 200, "x" * 900


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedModel]:
    """A fine-tuned model of which only the tasks matter."""
    monkeypatch.setenv("MANYICL_BASE_MODEL", BASE_MODEL)
    monkeypatch.setenv("MANYICL_MODEL_FOLDER", str(tiny_model))
    get_settings.cache_clear()
    [base] = known_base_models()
    yield ServedModel(base, "lora", "0" * 64, None, trained_tokens=MAX_POSITIONS)
    get_settings.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(tmp_path.as_uri())


@pytest.fixture
def encoder(tiny_model: Path) -> Encoder:
    return load_encoder(tiny_model)


def trained_on(model: ServedModel, store: ArtifactStore, *tasks: Task) -> ServedModel:
    content = TASKS.dump_json(list(tasks))
    digest = hashlib.sha256(content).hexdigest()
    store.put(f"datasets/{digest}.json", content)
    return replace(model, dataset=digest)


def asked(
    store: ArtifactStore, model: ServedModel, query: str, max_shots: int | None = None, task: str = "count"
) -> HostedPrompt:
    [prompt] = hosted_prompts(store, model, ManyiclChat(task=task, max_shots=max_shots), [query])
    return prompt


def context_of(prompt: HostedPrompt) -> tuple[int, ...]:
    return prompt.prefix


def plainly_drawn(encoder: Encoder, shots: int, max_tokens: int) -> Context:
    return draw_context(encoder, COUNT.definition, COUNT.demonstrations, shots, max_tokens)


@pytest.mark.parametrize("max_shots", [None, 400])
def test_ordinary_queries_of_any_length_stand_behind_the_same_demonstrations(
    model: ServedModel, store: ArtifactStore, encoder: Encoder, max_shots: int | None
) -> None:
    assert len(encoder.query(SHORT)) < len(encoder.query(ORDINARY)) <= QUERY_ROOM
    tuned = trained_on(model, store, COUNT)
    short, ordinary = (asked(store, tuned, query, max_shots) for query in (SHORT, ORDINARY))
    expected = plainly_drawn(encoder, 400, MAX_POSITIONS - ANSWER_ROOM - QUERY_ROOM)
    assert (context_of(short), short.shots) == (context_of(ordinary), ordinary.shots)
    assert (context_of(short), short.shots) == (expected.tokens, expected.shots)
    assert 0 < short.shots < 400
    assert short.query == tuple(encoder.query(SHORT))


def test_a_long_query_stands_behind_as_many_of_them_as_fit_beside_it(
    model: ServedModel, store: ArtifactStore, encoder: Encoder
) -> None:
    query = encoder.query(LONG)
    assert len(query) > QUERY_ROOM
    tuned = trained_on(model, store, COUNT)
    long, short = asked(store, tuned, LONG), asked(store, tuned, SHORT)
    expected = plainly_drawn(encoder, 400, MAX_POSITIONS - ANSWER_ROOM - len(query))
    assert (context_of(long), long.shots) == (expected.tokens, expected.shots)
    assert 0 < long.shots < short.shots
    assert context_of(short)[: long.context_tokens] == context_of(long), "so the compiled prefix serves it too"
    with pytest.raises(InvalidRequest) as refused:
        asked(store, tuned, LONG * 3)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("shots", [0, 1, 7])
def test_a_number_of_shots_is_kept_to(model: ServedModel, store: ArtifactStore, encoder: Encoder, shots: int) -> None:
    prompt = asked(store, trained_on(model, store, COUNT), SHORT, shots)
    assert (context_of(prompt), prompt.shots) == (plainly_drawn(encoder, shots, 1000).tokens, shots)


def test_without_a_number_they_fill_a_training_sequence(
    model: ServedModel, store: ArtifactStore, encoder: Encoder
) -> None:
    tuned = replace(trained_on(model, store, COUNT), trained_tokens=300)
    assert context_of(asked(store, tuned, SHORT)) == plainly_drawn(encoder, 400, 300).tokens
    assert asked(store, tuned, SHORT, 400).context_tokens > 300


def test_demonstrations_are_drawn_once_for_all_threads_and_all_calls(
    model: ServedModel, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = Mock(wraps=draw_context)
    monkeypatch.setattr(drawn, "draw_context", drawing)
    tuned = trained_on(model, store, COUNT)
    with ThreadPoolExecutor(4) as threads:
        prompts = list(threads.map(lambda query: asked(store, tuned, query), [SHORT, ORDINARY, LONG, SHORT] * 2))
    assert prompts[0] == prompts[-1] == asked(store, tuned, SHORT)
    assert drawing.call_count == 1


def test_other_data_and_other_tasks_are_not_served_from_what_was_drawn(
    model: ServedModel, store: ArtifactStore
) -> None:
    labelled = numbered_task(3, "mark", labels=["000", "001", "002"], metric="accuracy")
    first, again = trained_on(model, store, COUNT, labelled), trained_on(model, store, numbered_task(5))
    assert asked(store, first, SHORT).shots > asked(store, again, SHORT).shots == 5
    mark = asked(store, first, SHORT, task="mark")
    assert (mark.shots, mark.labels) == (3, ("000", "001", "002"))
    with pytest.raises(NotFound) as refused:
        asked(store, again, SHORT, task="mark")
    assert refused.value.param == "manyicl.task"


def test_the_labels_of_a_task_are_encoded_with_it(model: ServedModel, store: ArtifactStore, encoder: Encoder) -> None:
    labelled = numbered_task(2, "mark", labels=["000", "001"], metric="accuracy")
    prompt = asked(store, trained_on(model, store, labelled), SHORT, task="mark")
    assert prompt.label_tokens == [encoder.answer("000"), encoder.answer("001")]


def test_a_context_with_a_label_that_no_call_could_answer_is_refused(
    model: ServedModel, store: ArtifactStore, encoder: Encoder
) -> None:
    longest = "x" * (MAX_LABEL_TOKENS - len(encoder.answer("x")) + 1)
    assert len(encoder.answer(longest)) == MAX_LABEL_TOKENS

    def made(too: str, **body: object) -> Task:
        task = task_of([("a", "yes"), ("b", longest + too)], "mark", labels=["yes", longest + too], metric="accuracy")
        request = CreateContext.model_validate({"model": "m", "task": "mark"} | body)
        return source_task(Session(), store, "p", trained_on(model, store, task), request)

    assert made("").definition.labels == ["yes", longest]
    for labels, field in ((None, "task"), (["yes", "no", longest + "x"], "labels.2")):
        with pytest.raises(InvalidRequest, match="has 257 tokens and may have 256") as refused:
            made("x", labels=labels)
        assert refused.value.param == field


def test_of_a_file_only_the_lines_of_the_named_task_are_held_in_memory(
    model: ServedModel, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Example]] = []
    held: list[int] = []

    def rows(*_: object) -> Iterator[Row]:
        for line in range(1, 301):
            example = Example(input="a", output="b", line=line)
            read.append(weakref.ref(example))
            yield Row("rare" if line % 100 == 0 else "frequent", None, example)
        held.append(sum(each() is not None for each in read))

    monkeypatch.setattr(sources, "read_rows", rows)
    request = CreateContext(model="m", file="file-a", task="rare")
    task = source_task(Session(), store, "p", model, request)
    assert [example.line for example in task.demonstrations] == [100, 200, 300]
    assert held[0] <= 4, "one more, which was just read"
