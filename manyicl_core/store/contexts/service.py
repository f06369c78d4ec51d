"""Put a query behind its demonstrations, token for token as in training."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyicl_core.base_models.catalog import BaseModelEntry, base_model_folder, context_length
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.method.encoding import ANSWER_TEMPLATE, escape_answer
from manyicl_core.method.tasks import Example, Turn
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.drawn import DrawnTask, drawn_task
from manyicl_core.store.contexts.schemas import InlineContext, ManyiclChat
from manyicl_core.store.models.service import ServedModel

ANSWER_ROOM = 256

QUERY_ROOM = 256
"""Tokens that every context leaves for a query."""


@dataclass(frozen=True, slots=True)
class HostedPrompt:
    """What the engine needs for one query.

    Attributes:
        prefix: ids of the context, which all queries of a call share.
        query: ids of what follows it.
        shots: demonstrations in the context.
        asked_shots: how many were asked for, if so; there may be fewer, or fewer may fit.
        stop_token: ends the answer.
        labels: the closed set of answers, or None.
        context: the id of a hosted context, or None.
        label_tokens: the ids of the labels, each with the stop token; None where they came with the request.
        instruction: what stands before the demonstrations; it may be empty.
    """

    prefix: tuple[int, ...]
    query: tuple[int, ...]
    shots: int
    stop_token: int
    labels: tuple[str, ...] | None
    context: str | None = None
    label_tokens: list[list[int]] | None = None
    instruction: str = ""
    asked_shots: int | None = None

    @property
    def tokens(self) -> list[int]:
        """Ids of context and query; a list of its own each time, as a call may have thousands of queries."""
        return [*self.prefix, *self.query]

    @property
    def context_tokens(self) -> int:
        """How many tokens the context has."""
        return len(self.prefix)

    @property
    def choices(self) -> list[str] | None:
        """The labels as the model writes them."""
        if self.labels is None:
            return None
        return label_texts(self.labels)


def longest_context(base: BaseModelEntry) -> int:
    """The most tokens of a context of this model, so that a query and its answer fit beside it."""
    return context_length(base) - ANSWER_ROOM - QUERY_ROOM


def hosted_prompts(
    store: ArtifactStore,
    model: ServedModel,
    request: ManyiclChat,
    queries: Sequence[str],
    earlier: Sequence[Turn] = (),
) -> list[HostedPrompt]:
    """The prompts for ``queries``, each after ``earlier`` exchanges, under the request's task or inline context.

    All stand behind the same demonstrations.

    Raises:
        NotFound: the model has no such task.
        InvalidRequest: there is neither, or the context and a query are longer than the model reads.
    """
    if request.task is None and request.context is None:
        raise InvalidRequest("give either task or context", "manyicl")
    encoder = load_encoder(base_model_folder(model.base))
    encoded = [encoder.query(query, earlier) for query in queries]
    room = context_length(model.base) - max(map(len, encoded)) - ANSWER_ROOM
    label_tokens: list[list[int]] | None = None
    if isinstance(request.context, InlineContext):
        context, shots = _inline_tokens(model, request.context, request.max_shots)
        labels = None if request.context.labels is None else tuple(request.context.labels)
        instruction = request.context.instruction
    else:
        assert request.task is not None
        task = _drawn_task(store, model, request.task, request.max_shots)
        context, shots = task.first(request.max_shots, room)
        labels, label_tokens, instruction = task.labels, task.label_tokens, task.instruction
    if len(context) > room:
        raise InvalidRequest(
            f"the context has {len(context)} tokens and {max(room, 0)} fit beside this query and its answer; "
            "lower max_shots or shorten the query",
            "manyicl.max_shots",
            "context_length_exceeded",
        )
    shared = (shots, encoder.stop, labels)
    return [
        HostedPrompt(
            context,
            tuple(query),
            *shared,
            label_tokens=label_tokens,
            instruction=instruction,
            asked_shots=request.max_shots,
        )
        for query in encoded
    ]


def label_texts(labels: Sequence[str]) -> list[str]:
    """Labels as the model writes them."""
    return [ANSWER_TEMPLATE.format(output=escape_answer(label)) for label in labels]


def _inline_tokens(model: ServedModel, context: InlineContext, max_shots: int | None) -> tuple[tuple[int, ...], int]:
    encoder = load_encoder(base_model_folder(model.base))
    examples = context.examples[:max_shots]
    encoded = [
        encoder.example(Example(input=example.input, output=example.output, line=line))
        for line, example in enumerate(examples, start=1)
    ]
    return tuple(encoder.context(context.instruction, encoded)), len(encoded)


def _drawn_task(store: ArtifactStore, model: ServedModel, name: str, max_shots: int | None) -> DrawnTask:
    """What fills a training sequence or, where the number of demonstrations is given, all that the model reads.

    It leaves the same room whatever the query: more beside a short one would be another prefix, compiled anew.
    """
    if model.dataset is None:
        raise NotFound("task of this model", name, "manyicl.task")
    limit = longest_context(model.base)
    if max_shots is None:
        limit = min(limit, model.trained_tokens)
    return drawn_task(store, base_model_folder(model.base), model.dataset, name, limit)
