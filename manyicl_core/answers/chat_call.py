"""What a chat completion asks of the engine."""

from dataclasses import dataclass
from typing import Any

from manyicl_core.answers.answer_text import AnswerText, JsonText, LabelText, MatchedText, PlainText, StoppedText
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.conversation import read_conversation
from manyicl_core.answers.objects import PlainTold, Told, Usage
from manyicl_core.answers.prompts import (
    LABEL_SCORES,
    Target,
    answer_stops,
    engine_fields,
    find_target,
    hosted_fields,
    label_scores_body,
    prompts_behind,
    told,
)
from manyicl_core.base_models.catalog import base_model_folder
from manyicl_core.base_models.chat_template import BadChat, load_chat_template
from manyicl_core.errors import InvalidRequest
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt

_DEFAULT_CHAT_TOKENS = 512
_DEFAULT_TUNED_TOKENS = 64
"""Of a tuned model without a task: it learnt answers of a line, and none that ends a chat."""

# What works token by token, with the value at which it does nothing.
_WITHOUT_LABEL_PROBABILITIES: dict[str, Any] = {
    "logprobs": False,
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_p": 1,
}


@dataclass(frozen=True, slots=True)
class EngineCall:
    """A request to the engine.

    On the path ``LABEL_SCORES`` the engine writes no text: the answer is drawn from the labels'
    probabilities.

    Attributes:
        prompt: is there when it stands behind demonstrations.
        stops: what ends the answer to such a prompt, as the client reads it.
        plain: what is told of a tuned model where no demonstrations stand before the prompt.
    """

    path: str
    body: dict[str, Any]
    prompt: HostedPrompt | None = None
    stops: tuple[str, ...] = ()
    plain: PlainTold | None = None

    def told(self, usage: Usage | None = None) -> Told | PlainTold | None:
        """The answer's ``manyicl`` object; with the engine's ``usage`` at the end."""
        return self.plain if self.prompt is None else told(self.prompt, usage)

    def new_text(self) -> PlainText:
        """What turns the engine's text into the answer."""
        if self.prompt is None:
            return PlainText()
        if self.prompt.labels is not None:
            return LabelText(self.prompt.labels)
        match self.body.get("structured_outputs"):
            case {"json": _} | {"json_object": _}:
                return StoppedText(JsonText(), self.stops)
            case {"regex": _}:
                return StoppedText(MatchedText(), self.stops)
        return StoppedText(AnswerText(), self.stops)


def chat_call(project_id: str, artifacts: ArtifactStore, body: CreateChatCompletion, priority: int = 0) -> EngineCall:
    """The call that answers ``body`` for a project; reads database and artifacts, so not for an event loop.

    Args:
        project_id: whose model it is.
        artifacts: where tasks lie.
        body: the request.
        priority: 0 for somebody who waits, 1 for bulk.

    Raises:
        NotFound: the project has no such model or context, or the model no such task.
        InvalidRequest: the body cannot be answered; the error names the field.
        NotReady: the context that it names is being made.
    """
    target = find_target(project_id, artifacts, body.model, body.manyicl)
    if not target.hosted:
        return _chat_call(target, body, priority)
    conversation = read_conversation(body.messages)
    [prompt] = prompts_behind(artifacts, target, [conversation.query], "messages", conversation.earlier)
    conversation.check_instruction(prompt.instruction)
    if prompt.labels is not None and body.structured_outputs() is not None:
        raise InvalidRequest(
            "response_format: this task's answers are its labels; leave response_format out", "response_format"
        )
    if body.manyicl is not None and body.manyicl.label_probabilities:
        _check_label_probabilities(body, prompt)
        scores = label_scores_body(target, [prompt], priority)
        return EngineCall(LABEL_SCORES, scores if body.seed is None else scores | {"seed": body.seed}, prompt)
    return _query_call(target, prompt, body, priority)


def _chat_call(target: Target, body: CreateChatCompletion, priority: int) -> EngineCall:
    request = _sampling(target, body, priority) | {
        "prompt": _chat_tokens(target, body),
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "max_tokens": body.answer_tokens(_DEFAULT_TUNED_TOKENS if target.is_tuned_alone else _DEFAULT_CHAT_TOKENS),
    }
    if body.logprobs:
        request["logprobs"] = body.top_logprobs or 0
    return EngineCall("/v1/completions", request, plain=target.told_plain())


def _chat_tokens(target: Target, body: CreateChatCompletion) -> list[int]:
    """The prompt as token ids, whatever the engine: a text would have users' control tokens read."""
    messages = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text()}
        for message in body.messages
    ]
    try:
        return load_chat_template(base_model_folder(target.model.base)).prompt_ids(messages)
    except BadChat as error:
        raise InvalidRequest(f"messages: {error}", "messages") from error


def _query_call(target: Target, prompt: HostedPrompt, body: CreateChatCompletion, priority: int) -> EngineCall:
    request = _sampling(target, body, priority) | {"prompt": prompt.tokens}
    if body.logprobs:
        request["logprobs"] = body.top_logprobs or 0
    request |= hosted_fields(prompt, body, body.answer_tokens(ANSWER_ROOM))
    return EngineCall("/v1/completions", request, prompt, answer_stops(prompt, body))


def _sampling(target: Target, body: CreateChatCompletion, priority: int) -> dict[str, Any]:
    """What both kinds of request say in the same words."""
    request = engine_fields(target, priority) | body.sampling()
    outputs = body.structured_outputs()
    return request if outputs is None else request | {"structured_outputs": outputs}


def _check_label_probabilities(body: CreateChatCompletion, prompt: HostedPrompt) -> None:
    if prompt.labels is None:
        raise InvalidRequest(
            "manyicl.label_probabilities: this task has no labels; give the task or context some, or leave it out",
            "manyicl.label_probabilities",
        )
    for name, neutral in _WITHOUT_LABEL_PROBABILITIES.items():
        if getattr(body, name) not in (None, neutral):
            raise InvalidRequest(
                f"{name}: with manyicl.label_probabilities the answer is drawn from whole labels, "
                f"not token by token; leave {name} out",
                name,
            )
