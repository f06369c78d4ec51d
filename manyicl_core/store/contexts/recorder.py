"""What a hosting worker writes about a context: every write locks the held row and checks the fence."""

from sqlalchemy.orm import Session

from manyicl_core.method.contexts import Context as ChosenContext
from manyicl_core.store.contexts.context_object import SelectedObject
from manyicl_core.store.job_states import CANCELLED, FAILED, SUCCEEDED
from manyicl_core.store.leases import Claim, finish, hold
from manyicl_core.store.tables import Context


def record_chosen(
    session: Session,
    claim: Claim[Context],
    artifact: str,
    chosen: ChosenContext,
    prefix_bytes: int,
    selected: SelectedObject,
) -> None:
    """The demonstrations are chosen and their tokens stored: from now on the context answers."""
    context = hold(session, claim)
    context.artifact = artifact
    context.tokens = len(chosen.tokens)
    context.bytes = prefix_bytes
    context.demonstrations = list(chosen.lines)
    context.selected = selected.model_dump()


def record_success(session: Session, claim: Claim[Context]) -> None:
    """The engine has compiled the prefix."""
    finish(session, hold(session, claim), SUCCEEDED)


def record_failure(session: Session, claim: Claim[Context], code: str, message: str) -> None:
    """It can never be compiled."""
    context = hold(session, claim)
    context.error_code, context.error_message = code, message
    finish(session, context, FAILED)


def record_cancelled(session: Session, claim: Claim[Context]) -> None:
    """Somebody asked for its end."""
    finish(session, hold(session, claim), CANCELLED)
