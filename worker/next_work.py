"""What a hint makes a worker do: take what comes next in its queue, whosever it is, and see it through."""

import threading
from collections.abc import Sequence
from typing import Any

from manyicl_core.settings import get_settings
from manyicl_core.store.fair_queue import claim_waiting, waiting_work
from manyicl_core.store.leases import Claim
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Leased
from worker.attempt import Kind, see_through
from worker.batches import BATCH
from worker.context_building import CONTEXT
from worker.evaluation import EVALUATION
from worker.supervisor import JOB

_CANDIDATES = 20
_BATCHES_AT_A_TIME = 2
_batch_room = threading.BoundedSemaphore(_BATCHES_AT_A_TIME)


def run_next_job() -> None:
    """Run the job or evaluation that comes next, if any waits."""
    kinds: tuple[Kind[Any], ...] = (JOB, EVALUATION)
    if (claim := _claim_next(kinds)) is not None:
        _run(kinds, claim)


def run_next_hosting() -> None:
    """Build the context or answer the batch that comes next, if any waits.

    A process answers few batches at a time, so that threads are left for short work; a batch that
    finds no room goes on waiting, and the dispatcher sends its hint again.
    """
    has_room = _batch_room.acquire(blocking=False)
    kinds: tuple[Kind[Any], ...] = (CONTEXT, BATCH) if has_room else (CONTEXT,)
    try:
        claim = _claim_next(kinds)
        if has_room and (claim is None or claim.table is not BATCH.table):
            has_room = False
            _batch_room.release()
        if claim is not None:
            _run(kinds, claim)
    finally:
        if has_room:
            _batch_room.release()


def _claim_next(kinds: Sequence[Kind[Any]]) -> Claim[Leased] | None:
    with transaction() as session:
        waiting = waiting_work(session, [kind.table for kind in kinds], _CANDIDATES)
    for candidate in waiting:
        with transaction() as session:
            claim = claim_waiting(session, candidate, get_settings().lease_seconds)
        if claim is not None:
            return claim
    return None


def _run(kinds: Sequence[Kind[Any]], claim: Claim[Leased]) -> None:
    kind = next(kind for kind in kinds if kind.table is claim.table)
    see_through(kind, claim)
