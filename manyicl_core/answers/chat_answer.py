"""The engine's answer as OpenAI's ``chat.completion``."""

import random
import secrets
import time
from typing import Any

from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.grammars import naming_the_field
from manyicl_core.answers.labels import drawn, probabilities
from manyicl_core.answers.logprobs import chat_logprobs, until_stop
from manyicl_core.answers.objects import ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage
from manyicl_core.answers.prompts import LABEL_SCORES, told
from manyicl_core.engines.client import CompletionEngine


async def answer_chat(engine: CompletionEngine, call: EngineCall, body: CreateChatCompletion) -> ChatCompletion:
    """The whole answer to ``body``, whose call is ``call``; the errors are those of the engine."""
    with naming_the_field(call.body):
        answer = await engine.complete(call.path, call.body)
    return chat_answer(call, body, answer)


def answer_id() -> str:
    """A new answer's."""
    return "chatcmpl-" + secrets.token_hex(12)


def chat_answer(call: EngineCall, body: CreateChatCompletion, answer: dict[str, Any]) -> ChatCompletion:
    """The engine's whole ``answer`` in OpenAI's shape."""
    manyicl = call.told(answer["usage"])
    if call.path == LABEL_SCORES:
        [scores] = answer["scores"]
        choices = _drawn_choices(call, body, scores)
        assert call.prompt is not None
        of_label = dict(zip(_labels(call), probabilities(scores), strict=True))
        manyicl = {**told(call.prompt, answer["usage"]), "label_probabilities": of_label}
    else:
        choices = [_choice(call, body, choice) for choice in answer["choices"]]
    return {
        "id": answer_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": choices,
        "usage": answer["usage"],
        "system_fingerprint": answer.get("system_fingerprint"),
        "manyicl": manyicl,
    }


def _choice(call: EngineCall, body: CreateChatCompletion, choice: dict[str, Any]) -> ChatChoice:
    text = call.new_text()
    content = text.push(choice["text"]) + text.flush()
    finish, logprobs = choice["finish_reason"], choice.get("logprobs")
    if text.stopped:
        finish, logprobs = "stop", until_stop(logprobs, call.new_text())
    return _told_choice(choice["index"], content, finish, chat_logprobs(logprobs, body.top_logprobs or 0))


def _drawn_choices(call: EngineCall, body: CreateChatCompletion, scores: list[float]) -> list[ChatChoice]:
    labels = _labels(call)
    generator = random.Random(body.seed)
    indices = [drawn(scores, body.temperature or 0.0, generator) for _ in range(body.n or 1)]
    return [_told_choice(number, labels[index], "stop", None) for number, index in enumerate(indices)]


def _labels(call: EngineCall) -> tuple[str, ...]:
    assert call.prompt is not None
    assert call.prompt.labels is not None
    return call.prompt.labels


def _told_choice(index: int, content: str, finish: str | None, logprobs: ChatLogprobs | None) -> ChatChoice:
    message: ChatMessage = {"role": "assistant", "content": content, "refusal": None}
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}
