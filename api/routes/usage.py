"""A project's usage, a day each."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api.dependencies import ReaderDep
from manyicl_core.errors import InvalidRequest
from manyicl_core.store.session import transaction
from manyicl_core.store.usage import service
from manyicl_core.store.usage.schemas import UsagePage, usage_bucket

router = APIRouter(prefix="/usage", tags=["usage"])

_LAST_SECOND = int(datetime(9000, 1, 1, tzinfo=UTC).timestamp())
_Time = Annotated[int | None, Query(ge=0, le=_LAST_SECOND)]


@router.get("")
def retrieve_usage(
    caller: ReaderDep,
    start_time: _Time = None,
    end_time: _Time = None,
    bucket_width: Literal["1d"] = "1d",
    limit: Annotated[int, Query(ge=1, le=31)] = 7,
    page: str | None = None,
) -> UsagePage:
    """What the project used, a bucket a day (UTC), oldest first; the last ``limit`` days without a ``start_time``."""
    with transaction() as session:
        today = service.today(session)
        first = today - timedelta(days=limit - 1) if start_time is None else _day(start_time)
        if page is not None:
            first = _page_start(page)
        # The end is not included, as at OpenAI.
        last = today if end_time is None else min(today, _day(end_time - 1 if end_time else 0))
        shown = [first + timedelta(days=number) for number in range(min(limit, (last - first).days + 1))]
        days = service.read_usage(session, caller.project_id, shown[0], shown[-1]) if shown else {}
    more = bool(shown) and shown[-1] < last
    next_page = (shown[-1] + timedelta(days=1)).isoformat() if more else None
    data = [usage_bucket(caller.project_id, day, days.get(day)) for day in shown]
    return UsagePage(data=data, has_more=more, next_page=next_page)


def _day(seconds: int) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _page_start(page: str) -> date:
    try:
        return date.fromisoformat(page)
    except ValueError as error:
        raise InvalidRequest(f"page: {page!r} is not a page's next_page; leave it out for the first", "page") from error
