"""Put a query behind its demonstrations, token for token as in training."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyicl_core.base_models.catalog import base_model_folder, context_length
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.method.contexts import draw_context
from manyicl_core.method.encoding import ANSWER_TEMPLATE, escape_answer
from manyicl_core.method.tasks import Example, Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.schemas import InlineContext, ManyiclChat
from manyicl_core.store.models.service import ServedModel
from manyicl_core.store.tasks.datasets import load_dataset

ANSWER_ROOM = 256


@dataclass(frozen=True, slots=True)
class HostedPrompt:
    """What the engine needs for one query.

    Attributes:
        tokens: ids of context and query.
        context_tokens: how many of them are the context.
        shots: demonstrations in the context.
        stop_token: ends the answer.
        labels: the closed set of answers, or None.
        context: the id of a hosted context, or None.
        label_tokens: of a hosted context, the ids of the labels, each with the stop token.
    """

    tokens: tuple[int, ...]
    context_tokens: int
    shots: int
    stop_token: int
    labels: tuple[str, ...] | None
    context: str | None = None
    label_tokens: list[list[int]] | None = None

    @property
    def choices(self) -> list[str] | None:
        """The labels as the model writes them."""
        if self.labels is None:
            return None
        return label_texts(self.labels)


def hosted_prompts(
    store: ArtifactStore, model: ServedModel, request: ManyiclChat, queries: Sequence[str]
) -> list[HostedPrompt]:
    """The prompts for ``queries`` under the request's task or inline context, the same one for all.

    Raises:
        NotFound: the model has no such task.
        InvalidRequest: there is neither, or the context and a query are longer than the model reads.
    """
    if request.task is None and request.context is None:
        raise InvalidRequest("give either task or context", "manyicl")
    encoder = load_encoder(base_model_folder(model.base))
    encoded = [encoder.query(query) for query in queries]
    room = context_length(model.base) - max(map(len, encoded)) - ANSWER_ROOM
    if isinstance(request.context, InlineContext):
        context, shots = _inline_tokens(model, request.context, request.max_shots)
        labels = request.context.labels
    else:
        assert request.task is not None
        task = next((task for task in _tasks(store, model) if task.definition.name == request.task), None)
        if task is None:
            raise NotFound("task of this model", request.task, "manyicl.task")
        shots_asked = len(task.demonstrations) if request.max_shots is None else request.max_shots
        limit = min(room, model.trained_tokens) if request.max_shots is None else room
        drawn = draw_context(encoder, task.definition, task.demonstrations, shots_asked, limit)
        context, shots, labels = drawn.tokens, drawn.shots, task.definition.labels
    if len(context) > room:
        raise InvalidRequest(
            f"the context has {len(context)} tokens and {max(room, 0)} fit beside this query and its answer; "
            "lower max_shots or shorten the query",
            "manyicl.max_shots",
            "context_length_exceeded",
        )
    closed = None if labels is None else tuple(dict.fromkeys(label.strip() for label in labels))
    return [HostedPrompt((*context, *query), len(context), shots, encoder.stop, closed) for query in encoded]


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


def _tasks(store: ArtifactStore, model: ServedModel) -> list[Task]:
    if model.dataset is None:
        return []
    return load_dataset(store, model.dataset)
