"""A copy of the tasks of a job or an evaluation: content-addressed, so that deleting a file breaks nothing.

It is deleted when no model and no job or evaluation that is not over refers to it.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.errors import NotFound, UserError
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.job_states import FINAL
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Job, Model
from manyicl_core.store.tasks.dataset_cache import TASKS, DatasetCache

_IN_MEMORY = DatasetCache(64 << 20)


@contextmanager
def kept_dataset(session: Session, store: ArtifactStore, tasks: list[Task]) -> Iterator[str]:
    """Keep the tasks for a row that the block makes; gives their SHA-256, by which they are found.

    Nobody deletes them before the commit. Where the block refuses the row, they go again.
    """
    content = TASKS.dump_json(tasks)
    digest = hashlib.sha256(content).hexdigest()
    store.put(_key(digest), content)
    _hold(session, digest)
    if not store.exists(_key(digest)):  # deleted in between
        store.put(_key(digest), content)
    try:
        yield digest
    except UserError:
        _delete_unless_referred(session, store, digest)
        raise


def load_dataset(store: ArtifactStore, digest: str) -> list[Task]:
    """The tasks of a dataset.

    Raises:
        NotFound: what referred to it has been deleted meanwhile.
    """
    try:
        return _IN_MEMORY.get(digest, lambda: store.get(_key(digest)))
    except FileNotFoundError:
        raise NotFound("dataset", digest, "model") from None


def delete_unreferenced_dataset(store: ArtifactStore, digest: str) -> None:
    """Delete a dataset that no row refers to; call it after the rows' transaction."""
    with transaction() as session:
        _hold(session, digest)
        _delete_unless_referred(session, store, digest)


@contextmanager
def fetched(store: ArtifactStore, key: str) -> Iterator[Path]:
    """An object as a temporary file, streamed."""
    with tempfile.NamedTemporaryFile() as file:
        for part in store.stream(key):
            file.write(part)
        file.flush()
        yield Path(file.name)


def _hold(session: Session, digest: str) -> None:
    """Keep others from referring to a dataset and from deleting it until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(digest, 0))))


def _delete_unless_referred(session: Session, store: ArtifactStore, digest: str) -> None:
    # One statement, so that a job that ends and its new model are seen at one moment.
    referred = or_(
        select(Model.id).where(Model.dataset == digest).exists(),
        select(Job.id).where(Job.dataset == digest, Job.state.not_in(FINAL)).exists(),
        select(Evaluation.id).where(Evaluation.dataset == digest, Evaluation.state.not_in(FINAL)).exists(),
    )
    if not session.scalar(select(referred)):
        store.delete(_key(digest))


def _key(digest: str) -> str:
    return f"datasets/{digest}.json"
