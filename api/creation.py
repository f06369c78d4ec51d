"""Routes that create: the same request again, by its key or as the client's own retry, makes nothing twice."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

import structlog
from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from api.dependencies import WriterDep
from manyicl_core.errors import UserError
from manyicl_core.store.creations import CreationRequest, earlier_answer, forget_equal, record_answer
from manyicl_core.store.session import transaction


class Made(Protocol):
    """The answer to a request that creates: the thing, with its id."""

    id: str

    def model_dump_json(self, *, by_alias: bool) -> str:
        """Its JSON text."""


Answer = TypeVar("Answer", bound=Made)

_log = structlog.get_logger(__name__)


class AnsweredBefore(Exception):
    """The request was carried out before; ``answer`` is the body that it got."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Once:
    """One request to create something, which is carried out once however often it comes.

    Attributes:
        gone: whether its client has closed the connection.
    """

    project_id: str
    route: str
    key: str | None
    retry: bool
    gone: Callable[[], bool]

    @property
    def is_new(self) -> bool:
        """Whether no earlier request can have made this already, as far as the client says."""
        return self.key is None and not self.retry

    def create(self, content: BaseModel | str, create: Callable[[Session], Answer]) -> Answer:
        """What ``create`` makes in a transaction, which also keeps the answer for a repeated request.

        Args:
            content: what the request asks for: its body, or a text that says the same, such as the
                hashes of its parts.
            create: makes it and gives the answer.

        Raises:
            AnsweredBefore: the request was carried out before.
            KeyReused: its key came with another request.
            StillRunning: the same request is still being carried out.
            ClientDisconnect: nobody waits for it any more, and a retry may have overtaken it.
        """
        text = content if isinstance(content, str) else content.model_dump_json(exclude_unset=True)
        fingerprint = hashlib.sha256(f"{self.route}\n{text}".encode()).hexdigest()
        request = CreationRequest(self.project_id, fingerprint, self.key, self.retry)
        try:
            with transaction() as session:
                if (earlier := earlier_answer(session, request)) is not None:
                    raise AnsweredBefore(earlier)
                if self.gone():
                    raise ClientDisconnect
                answer = create(session)
                record_answer(session, request, answer.model_dump_json(by_alias=True), answer.id)
        except UserError:
            _forget_equal(request)
            raise
        return answer


def _forget_equal(request: CreationRequest) -> None:
    """In a transaction of its own: that of the refused request is undone."""
    try:
        with transaction() as session:
            forget_equal(session, request)
    except OperationalError as error:
        _log.warning("creations_not_forgotten", reason=str(error).splitlines()[0])


async def _once(
    request: Request,
    caller: WriterDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0)] = 0,
) -> Once:
    loop = asyncio.get_running_loop()

    def gone() -> bool:
        return asyncio.run_coroutine_threadsafe(request.is_disconnected(), loop).result()

    return Once(caller.project_id, request.url.path, idempotency_key, x_stainless_retry_count > 0, gone)


OnceDep = Annotated[Once, Depends(_once)]
