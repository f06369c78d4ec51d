"""OpenAI's list bodies."""

from collections.abc import Sequence
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

Item = TypeVar("Item")


class _Listed(Protocol):
    id: str


_ListedItem = TypeVar("_ListedItem", bound=_Listed)


class ListObject(BaseModel, Generic[Item]):
    """A page; the client goes on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


# Quoted: evaluated, it would ask pydantic for the schema of a protocol.
def list_object(items: Sequence[_ListedItem], has_more: bool = False) -> "ListObject[_ListedItem]":
    """Items as a page."""
    ids = [item.id for item in items]
    return ListObject(
        data=list(items),
        has_more=has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )
