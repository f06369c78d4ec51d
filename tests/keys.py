"""Keys of all kinds, and clients that hold them."""

from collections.abc import Iterable

from openai import OpenAI

from manyicl_core.ids import new_id
from manyicl_core.store.projects.schemas import SCOPES
from manyicl_core.store.projects.service import create_key, get_or_create_project
from manyicl_core.store.session import transaction

ALL_BUT_OPERATOR = SCOPES[:-1]


def make_key(scopes: Iterable[str] = ALL_BUT_OPERATOR, project: str | None = None) -> str:
    """A key of the project of that name, or of a new one."""
    with transaction() as session:
        return create_key(session, get_or_create_project(session, project or new_id("p")), scopes)


def client_of(installation: str, key: str) -> OpenAI:
    """The unmodified client; it sends one key to ``client.admin`` and to all else."""
    return OpenAI(base_url=installation, api_key=key, admin_api_key=key, max_retries=0)
