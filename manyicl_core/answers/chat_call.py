"""What a chat completion asks of the engine."""

from dataclasses import dataclass
from typing import Any

from manyicl_core.answers.answer_text import AnswerText, PlainText
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.errors import InvalidRequest
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt, hosted_prompts
from manyicl_core.store.models.service import ServedModel, served_model
from manyicl_core.store.session import transaction

_DEFAULT_CHAT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class EngineCall:
    """A request to the engine; ``prompt`` is there when it stands behind demonstrations."""

    path: str
    body: dict[str, Any]
    prompt: HostedPrompt | None = None

    def new_text(self) -> PlainText:
        """What turns the engine's text into the answer."""
        return PlainText() if self.prompt is None else AnswerText()

    def told(self) -> dict[str, Any] | None:
        """The answer's ``manyicl`` object."""
        if self.prompt is None:
            return None
        return {"shots": self.prompt.shots, "context_tokens": self.prompt.context_tokens}


def chat_call(project_id: str, artifacts: ArtifactStore, body: CreateChatCompletion) -> EngineCall:
    """The call that answers ``body`` for a project; reads database and artifacts, so not for an event loop.

    Raises:
        NotFound: the project has no such model, or the model no such task.
        InvalidRequest: the body cannot be answered; the error names the field.
    """
    with transaction() as session:
        model = served_model(session, project_id, body.model)
    request: dict[str, Any] = {
        "model": model.weights_sha256 or model.base.id,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "seed": body.seed,
        "stop": body.stops(),
    }
    if body.manyicl is None:
        return _chat_call(body, request)
    return _query_call(artifacts, model, body, body.manyicl, request)


def _chat_call(body: CreateChatCompletion, request: dict[str, Any]) -> EngineCall:
    request["messages"] = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text()}
        for message in body.messages
    ]
    request["temperature"] = 1.0 if body.temperature is None else body.temperature
    request["max_tokens"] = body.answer_tokens(_DEFAULT_CHAT_TOKENS)
    return EngineCall("/v1/chat/completions", request)


def _query_call(
    artifacts: ArtifactStore,
    model: ServedModel,
    body: CreateChatCompletion,
    manyicl: ManyiclChat,
    request: dict[str, Any],
) -> EngineCall:
    if [message.role for message in body.messages] != ["user"]:
        raise InvalidRequest(
            "with manyicl, messages holds one user message, the query; the instruction and the demonstrations "
            "belong to the task or context",
            "messages",
        )
    query = body.messages[0].text()
    if not query.strip():
        raise InvalidRequest("messages.0.content: the query is empty; give it some text", "messages.0.content")
    [prompt] = hosted_prompts(artifacts, model, manyicl, [query])
    request |= {
        "prompt": list(prompt.tokens),
        "prefix_tokens": prompt.context_tokens,
        "stop_token_ids": [prompt.stop_token],
        # A task has one right answer: greedy unless the client asks otherwise.
        "temperature": 0.0 if body.temperature is None else body.temperature,
        "max_tokens": body.answer_tokens(ANSWER_ROOM),
    }
    if prompt.choices is not None:
        # A label is never cut short: it ends by itself, whatever stop or max_tokens say.
        request |= {"structured_outputs": {"choice": prompt.choices}, "stop": [], "max_tokens": ANSWER_ROOM}
    return EngineCall("/v1/completions", request, prompt)
