"""The stories of jobs and evaluations: add lines to them, and find what is new in many at once."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import ARRAY, BigInteger, String, cast, column, func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from manyicl_core.ids import new_id
from manyicl_core.store.job_states import FINAL
from manyicl_core.store.tables import EvaluationEvent, JobEvent, Leased
from manyicl_core.store.tables.events import EventType, Level

_AT_ONCE = 1000

Line = TypeVar("Line", JobEvent, EvaluationEvent)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as the API shows it, and its ``number`` in the order of all events."""

    number: int
    id: str
    shown: BaseModel


@dataclass(frozen=True, slots=True)
class News:
    """What is new in one story.

    Attributes:
        events: oldest first.
        over: with them all is told for good.
        more: there may be more already than were looked for at once.
    """

    events: list[NewEvent]
    over: bool
    more: bool


def add_event(
    session: Session,
    job_id: str,
    level: Level,
    message: str,
    type_: EventType = "message",
    data: dict[str, Any] | None = None,
) -> None:
    """Add a line to a job's story."""
    session.add(JobEvent(id=new_id("ftevent-"), job_id=job_id, level=level, type=type_, message=message, data=data))
    session.flush()


def add_evaluation_event(
    session: Session, evaluation_id: str, level: Level, message: str, data: dict[str, Any] | None = None
) -> None:
    """Add a line to an evaluation's story."""
    event = EvaluationEvent(
        id=new_id("evalevent-"), evaluation_id=evaluation_id, level=level, type="message", message=message, data=data
    )
    session.add(event)
    session.flush()


def find_news(
    session: Session,
    subject: type[Leased],
    line: type[Line],
    story: InstrumentedAttribute[Any],
    show: Callable[[Line], BaseModel],
    told: Mapping[str, int],
) -> dict[str, News]:
    """What is new in many stories, with two queries; a story without news is left out.

    A story's events become visible in the order of their numbers, since whoever adds one holds the
    row that it is about. Those of different stories need not, so each story has its own position.

    Args:
        subject: the table of what the stories are about.
        line: the table of events.
        story: the column of ``line`` that names the subject.
        show: an event as the API shows it.
        told: by the subject's id, the number of the last event that is known, or 0.
    """
    # The ends first: what ended the work is an event that then is there too.
    over = set(session.scalars(select(subject.id).where(subject.id.in_(told), subject.state.in_(FINAL))))
    ids, numbers = cast(list(told), ARRAY(String)), cast(list(told.values()), ARRAY(BigInteger))
    known = func.unnest(ids, numbers).table_valued(column("id", String), column("number", BigInteger)).render_derived()
    newer = (
        select(line)
        .where(story == known.c.id, line.number > known.c.number)
        .order_by(line.number)
        .limit(_AT_ONCE)
        .lateral()
    )
    query = select(aliased(line, newer)).select_from(known).join(newer, true()).order_by(newer.c.number)
    found: dict[str, list[NewEvent]] = defaultdict(list)
    for row in session.scalars(query):
        found[getattr(row, story.key)].append(NewEvent(row.number, row.id, show(row)))
    return {id_: _news(found[id_], id_ in over) for id_ in told if id_ in found or id_ in over}


def _news(events: list[NewEvent], over: bool) -> News:
    more = len(events) == _AT_ONCE
    return News(events, over and not more, more)
