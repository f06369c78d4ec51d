"""What the requests of a batch are: bodies as the endpoint's route takes them, but never urgent."""

import asyncio
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import DataError

from manyicl_core.answers.chat_answer import answer_chat
from manyicl_core.answers.chat_call import chat_call
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.classifications import CreateClassification, answer_classification, classification_call
from manyicl_core.answers.completion_answer import answer_completion
from manyicl_core.answers.completion_call import completion_call
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.objects import AnswerObject
from manyicl_core.answers.prompts import find_target
from manyicl_core.engines.client import CompletionEngine
from manyicl_core.errors import InvalidRequest, UserError
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.batches.lines import body_error

BULK_PRIORITY = 1
"""The engine answers every request of priority 0, the interactive ones, first."""

Body = CreateChatCompletion | CreateCompletion | CreateClassification

_BODIES: dict[str, type[Body]] = {
    "/v1/chat/completions": CreateChatCompletion,
    "/v1/completions": CreateCompletion,
    "/v1/classifications": CreateClassification,
}


class BodyCheck:
    """Refuses bodies that could not be answered, whatever the engine says; looks once for what many name."""

    def __init__(self, project_id: str, artifacts: ArtifactStore, endpoint: str) -> None:
        self._project_id = project_id
        self._artifacts = artifacts
        self._endpoint = endpoint
        self._found: dict[tuple[str, str | bool | None, str | None], UserError | None] = {}

    def __call__(self, content: dict[str, Any]) -> None:
        """Check one body.

        Raises:
            UserError: it is wrong, or its model or context does not exist.
        """
        body = _parse(self._endpoint, content)
        context, task = (None, None) if body.manyicl is None else (body.manyicl.context, body.manyicl.task)
        # Of an inline context only that there is one.
        named = body.model, context if isinstance(context, str) else context is not None, task
        if named not in self._found:
            self._found[named] = self._find(body)
        if (error := self._found[named]) is not None:
            raise error

    def _find(self, body: Body) -> UserError | None:
        try:
            find_target(self._project_id, self._artifacts, body.model, body.manyicl)
        except UserError as error:
            return error if error.retry_after_ms is None else None
        except DataError:
            return InvalidRequest("model: a character that cannot be stored, such as NUL; remove it", "model")
        return None


async def answer_body(
    engine: CompletionEngine, artifacts: ArtifactStore, project_id: str, endpoint: str, content: dict[str, Any]
) -> AnswerObject:
    """The answer to one body, which has been checked.

    Raises:
        UserError: there is none; ``retry_after_ms`` says whether there may be one later.
    """
    match _parse(endpoint, content):
        case CreateChatCompletion() as chat:
            call = await asyncio.to_thread(chat_call, project_id, artifacts, chat, BULK_PRIORITY)
            return await answer_chat(engine, call, chat)
        case CreateCompletion() as prompts:
            completion = await asyncio.to_thread(completion_call, project_id, artifacts, prompts, BULK_PRIORITY)
            return await answer_completion(engine, completion, prompts)
        case CreateClassification() as inputs:
            scoring = await asyncio.to_thread(classification_call, project_id, artifacts, inputs, BULK_PRIORITY)
            return await answer_classification(engine, scoring, inputs)


def _parse(endpoint: str, content: dict[str, Any]) -> Body:
    try:
        return _BODIES[endpoint].model_validate(content)
    except ValidationError as error:
        raise body_error(error, content, _BODIES[endpoint]) from error
