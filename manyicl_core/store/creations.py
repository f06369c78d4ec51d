"""Create once: a request that comes again gets the first one's answer, not a second job, file or batch.

The answer is a row of the transaction that makes the thing, so there is never one without the
other (docs/decisions/0014).
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from manyicl_core.errors import UserError
from manyicl_core.store.engine import LOCK_WAIT, waited_too_long
from manyicl_core.store.tables import Creation

RETRY_WINDOW = timedelta(minutes=15)
"""In which a client's own retry comes: it gives up a request after 10 minutes of silence."""

_KEPT = timedelta(hours=24)
_WAIT = "10s"


class KeyReused(UserError):
    """An ``Idempotency-Key`` came again with another request."""

    status = 422

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency-Key: {key!r} was used for another request; send a new key with every new request, and the "
            "same key only to repeat the same one",
            "Idempotency-Key",
            "idempotency_key_reused",
        )


class StillRunning(UserError):
    """The same request is being worked on; trying again gives its answer."""

    status = 409
    retry_after_ms = 2000

    def __init__(self) -> None:
        super().__init__(
            "The same request is still being worked on; send it again in a moment for its answer",
            code="request_in_progress",
        )


@dataclass(frozen=True, slots=True)
class CreationRequest:
    """A request to create something.

    Attributes:
        fingerprint: SHA-256 over route and content.
        key: the client's ``Idempotency-Key``, or None.
        retry: the client says that it has sent this before.
    """

    project_id: str
    fingerprint: str
    key: str | None
    retry: bool


def earlier_answer(session: Session, request: CreationRequest) -> str | None:
    """The answer that the same request got before; None when it is to be carried out now.

    Holds equal requests back until the transaction ends, and waits for one that is ahead. A request
    without a key that is no retry is always carried out, also beside equal ones.

    Raises:
        KeyReused: its key came with another request before.
        StillRunning: an equal request is still being carried out.
    """
    _hold_back(session, request)
    if request.key is not None:
        return _answer_of_key(session, request, request.key)
    if not request.retry:
        return None
    query = select(Creation.answer).where(*_equal_without_key(request), Creation.created_at > func.now() - RETRY_WINDOW)
    return session.scalar(query.order_by(Creation.number.desc()).limit(1))


def record_answer(session: Session, request: CreationRequest, answer: str, made: str) -> None:
    """Keep the answer of a request that has just been carried out, and has made a thing of the id ``made``."""
    session.add(
        Creation(
            project_id=request.project_id, key=request.key, fingerprint=request.fingerprint, answer=answer, made=made
        )
    )
    session.flush()


def forget_equal(session: Session, request: CreationRequest) -> None:
    """A new request was refused: its retry must not be taken for one of an older, equal request."""
    if request.key is None and not request.retry:
        session.execute(delete(Creation).where(*_equal_without_key(request)))


def forget_made(session: Session, made: str) -> None:
    """A thing was deleted or cancelled: no retry of an equal request is taken for the one that made it.

    A key still gets its answer: that is what its client asked for.
    """
    session.execute(delete(Creation).where(Creation.made == made, Creation.key.is_(None)))


def delete_old_creations(session: Session) -> None:
    """Forget answers after a day."""
    session.execute(delete(Creation).where(Creation.created_at < func.now() - _KEPT))


def _equal_without_key(request: CreationRequest) -> tuple[ColumnElement[bool], ...]:
    return (
        Creation.project_id == request.project_id,
        Creation.fingerprint == request.fingerprint,
        Creation.key.is_(None),
    )


def _answer_of_key(session: Session, request: CreationRequest, key: str) -> str | None:
    query = select(Creation).where(Creation.project_id == request.project_id, Creation.key == key)
    earlier = session.scalar(query)
    if earlier is None:
        return None
    if earlier.fingerprint != request.fingerprint:
        raise KeyReused(key)
    return earlier.answer


def _hold_back(session: Session, request: CreationRequest) -> None:
    """Lock what makes requests equal: shared by new ones without a key, so that only repeats wait."""
    what = request.fingerprint if request.key is None else f"key {request.key}"
    digest = hashlib.sha256(f"{request.project_id} {what}".encode()).digest()
    lock = int.from_bytes(digest[:8], signed=True)
    if request.key is None and not request.retry:
        session.execute(select(func.pg_advisory_xact_lock_shared(lock)))
        return
    session.execute(text(f"SET LOCAL lock_timeout = '{_WAIT}'"))
    try:
        session.execute(select(func.pg_advisory_xact_lock(lock)))
    except OperationalError as error:
        if waited_too_long(error):
            raise StillRunning from error
        raise
    session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
