"""Ends of an attempt that are not the end of the work: somebody else goes on with it."""

from sqlalchemy.orm import Session

from manyicl_core.settings import get_settings
from manyicl_core.store.events import add_evaluation_event, add_event
from manyicl_core.store.hints import publish_hint
from manyicl_core.store.leases import Claim, give_up_lease, hold
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Job, Leased
from manyicl_core.store.tables.events import Level
from worker.dispatcher import HOSTING_WORK, JOBS_WORK


def hand_over(claim: Claim[Leased]) -> None:
    """This worker is being stopped: another one goes on at once, and nothing is counted.

    Raises:
        LeaseLost: the fence has moved on.
    """
    with transaction() as session:
        tell(session, claim, "info", "The worker is being stopped; the next one goes on")
        give_up_lease(session, claim, lost=False)
    publish_hint({**JOBS_WORK, **HOSTING_WORK}[claim.table], claim.id)


def is_last_attempt(claim: Claim[Leased]) -> bool:
    """Whether one more loss would be too many.

    Raises:
        LeaseLost: the fence has moved on.
    """
    with transaction() as session:
        return hold(session, claim).infrastructure_failures >= get_settings().max_infrastructure_failures


def give_up_lost(claim: Claim[Leased], reason: str) -> None:
    """Count a loss, tell it, and let another attempt be made; the heartbeat has stopped.

    Raises:
        LeaseLost: the fence has moved on.
    """
    with transaction() as session:
        tell(session, claim, "warn", f"The attempt failed, and another one goes on: {reason}")
        give_up_lease(session, claim, lost=True)


def tell(session: Session, claim: Claim[Leased], level: Level, message: str) -> None:
    """Add a line to the story of the work, where it has one.

    Raises:
        LeaseLost: the fence has moved on.
    """
    hold(session, claim)  # whoever adds to a story holds the row that it is about
    if claim.table is Job:
        add_event(session, claim.id, level, message)
    elif claim.table is Evaluation:
        add_evaluation_event(session, claim.id, level, message)
