"""A chat's answer as OpenAI's ``response``, whole or in events."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from manyicl_core.answers.chat_answer import answer_chat
from manyicl_core.answers.chat_call import EngineCall
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.chat_stream import stream_chat
from manyicl_core.answers.fields import StreamOptions
from manyicl_core.answers.objects import ChatLogprobs, ChosenTokenLogprob, Usage
from manyicl_core.answers.prompts import cached_tokens
from manyicl_core.answers.response_objects import OutputMessage, OutputText, ResponseObject, ResponseUsage, Status
from manyicl_core.answers.response_request import CreateResponse
from manyicl_core.engines.client import CompletionEngine, StreamingEngine

Event = dict[str, Any]


async def answer_response(
    engine: CompletionEngine, call: EngineCall, body: CreateResponse, chat: CreateChatCompletion
) -> ResponseObject:
    """The whole answer to ``body``, whose call is that of ``chat``; the errors are those of the engine."""
    with body.naming_its_fields():
        answer = await answer_chat(engine, call, chat)
    [choice] = answer["choices"]
    writing = _Writing(call, body)
    writing.add(choice["message"]["content"], choice["logprobs"])
    writing.finish = choice["finish_reason"]
    writing.usage, writing.response["manyicl"] = answer["usage"], answer["manyicl"]
    return writing.whole()


class ResponseStream:
    """The events of one answer, in the order in which OpenAI sends them.

    Args:
        engine: answers.
        call: that of ``chat``.
        body: the request.
        chat: what it asks for.
    """

    def __init__(
        self, engine: StreamingEngine, call: EngineCall, body: CreateResponse, chat: CreateChatCompletion
    ) -> None:
        self._body = body
        self._chunks = stream_chat(
            engine, call, chat.model_copy(update={"stream_options": StreamOptions(include_usage=True)})
        )
        self._writing = _Writing(call, body)
        self._sent = 0

    async def events(self) -> AsyncGenerator[Event, None]:
        """All of them; the first one comes when the engine has started to answer, a refusal before it."""
        writing = self._writing
        with self._body.naming_its_fields():
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if self._sent == 0:
                        for event in self._opening():
                            yield event
                    writing.response["manyicl"] = chunk["manyicl"]
                    writing.usage = chunk["usage"]
                    for choice in chunk["choices"]:
                        writing.finish = choice["finish_reason"]
                        piece, logprobs = choice["delta"].get("content", ""), choice["logprobs"]
                        if piece or logprobs:
                            added = writing.add(piece, logprobs)
                            yield self._in_part("response.output_text.delta", delta=piece, logprobs=added)
        for event in self._closing():
            yield event

    def failure(self, envelope: dict[str, Any]) -> list[Event]:
        """The last events, when the answer fails on its way with the error in ``envelope``."""
        error = envelope["error"]
        told = {"code": error["code"] or "server_error", "message": error["message"]}
        response = {**self._writing.response, "status": "failed", "error": told}
        # OpenAI's event has the three flat; under ``error`` the client finds and raises it.
        flat = {"code": told["code"], "message": told["message"], "param": error["param"], "error": error}
        return [self._event("response.failed", response=response), self._event("error", **flat)]

    def _opening(self) -> list[Event]:
        writing = self._writing
        return [
            self._event("response.created", response=dict(writing.response)),
            self._event("response.in_progress", response=dict(writing.response)),
            self._event("response.output_item.added", output_index=0, item=writing.message("in_progress", [])),
            self._in_part("response.content_part.added", part=_part("", [])),
        ]

    def _closing(self) -> list[Event]:
        writing = self._writing
        whole = writing.whole()
        [item] = whole["output"]
        [part] = item["content"]
        return [
            self._in_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"]),
            self._in_part("response.content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{whole['status']}", response=whole),
        ]

    def _in_part(self, type_: str, **content: Any) -> Event:
        return self._event(type_, item_id=self._writing.item_id, output_index=0, content_index=0, **content)

    def _event(self, type_: str, **content: Any) -> Event:
        self._sent += 1
        return {"type": type_, "sequence_number": self._sent - 1, **content}


class _Writing:
    """One answer while it is written.

    Attributes:
        response: the object as it is before there is any text.
        finish: the chat's reason for its end, once there is one.
        usage: the chat's, once it is told.
    """

    def __init__(self, call: EngineCall, body: CreateResponse) -> None:
        self.item_id = "msg_" + secrets.token_hex(12)
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.response = _begun(call, body)
        self._texts: list[str] = []
        self._logprobs: list[ChosenTokenLogprob] = []

    def add(self, piece: str, logprobs: ChatLogprobs | None) -> list[ChosenTokenLogprob]:
        """Take a piece of the text; gives the log-probabilities of its tokens, if any are told."""
        added = [] if logprobs is None else logprobs["content"]
        self._texts.append(piece)
        self._logprobs += added
        return added

    def message(self, status: Status, content: list[OutputText]) -> OutputMessage:
        """The item that holds the answer."""
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def whole(self) -> ResponseObject:
        """The answer at its end."""
        status: Status = "incomplete" if self.finish == "length" else "completed"
        item = self.message(status, [_part("".join(self._texts), self._logprobs)])
        return {
            **self.response,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [item],
            "usage": None if self.usage is None else _usage(self.usage),
        }


def _begun(call: EngineCall, body: CreateResponse) -> ResponseObject:
    format_ = None if body.text is None else body.text.format
    return {
        "id": "resp_" + secrets.token_hex(12),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "store": False,
        # As the engine was told; labels' probabilities are drawn from without its help.
        "temperature": call.body.get("temperature", body.temperature or 0.0),
        "text": {"format": {"type": "text"} if format_ is None else format_.model_dump(by_alias=True)},
        "tool_choice": body.tool_choice or "auto",
        "tools": [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "manyicl": None,
    }


def _part(text: str, logprobs: list[ChosenTokenLogprob]) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached_tokens(usage) or 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
