"""What a hint makes a worker do: take what comes next in its queue, whosever it is, and see it through."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from manyicl_core.settings import get_settings
from manyicl_core.store.contexts.options import AUTO
from manyicl_core.store.fair_queue import Rows, claim_waiting, waiting_work
from manyicl_core.store.leases import Claim
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Context, Leased
from worker import shutdown
from worker.attempt import Kind, see_through
from worker.batches import BATCH
from worker.context_building import CONTEXT
from worker.evaluation import EVALUATION
from worker.supervisor import JOB

_CANDIDATES = 20
_BATCHES_AT_A_TIME = 2
_AUTO_CONTEXTS_AT_A_TIME = 2
_claiming = threading.Lock()
_running: Counter[str] = Counter()


def run_next_job() -> bool:
    """Run the job or evaluation that comes next; False: none waits."""
    kinds: tuple[Kind[Any], ...] = (JOB, EVALUATION)
    if shutdown.is_asked() or (claim := _claim_next(kinds)) is None:
        return False
    _run(kinds, claim)
    return True


def run_next_hosting() -> None:
    """Build the context or answer the batch that comes next, if any waits.

    Batches, and contexts whose demonstrations are chosen by asking the model, wait for idle engines. A process sees
    to few of each at a time, so that threads are left for short work; what finds no room goes on waiting, and the
    dispatcher sends its hint again.
    """
    if shutdown.is_asked():
        return
    with _claiming:  # one after the other, so that what has room is counted before the next one looks
        has_batch_room = _running["batch"] < _BATCHES_AT_A_TIME
        kinds: tuple[Kind[Any], ...] = (CONTEXT, BATCH) if has_batch_room else (CONTEXT,)
        has_auto_room = _running["auto"] < _AUTO_CONTEXTS_AT_A_TIME
        claim = _claim_next(kinds, None if has_auto_room else {Context: Context.selection == AUTO})
        if claim is None:
            return
        lane = _lane(claim)
        _running[lane] += 1
    try:
        _run(kinds, claim)
    finally:
        with _claiming:
            _running[lane] -= 1


def _lane(claim: Claim[Leased]) -> str:
    if claim.table is BATCH.table:
        return "batch"
    with transaction() as session:
        selection = session.scalar(select(Context.selection).where(Context.id == claim.id))
    return "auto" if selection == AUTO else "short"


def _claim_next(kinds: Sequence[Kind[Any]], but_for: Rows | None = None) -> Claim[Leased] | None:
    with transaction() as session:
        waiting = waiting_work(session, [kind.table for kind in kinds], _CANDIDATES, but_for)
    for candidate in waiting:
        with transaction() as session:
            claim = claim_waiting(session, candidate, get_settings().lease_seconds)
        if claim is not None:
            return claim
    return None


def _run(kinds: Sequence[Kind[Any]], claim: Claim[Leased]) -> None:
    kind = next(kind for kind in kinds if kind.table is claim.table)
    see_through(kind, claim)
