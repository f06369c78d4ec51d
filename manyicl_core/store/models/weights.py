"""Weights in the artifact store: shared by their hash, deleted when nothing refers to them."""

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from manyicl_core.objects import ArtifactStore, weights_key
from manyicl_core.store.job_states import FINAL
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Checkpoint, Evaluation, Job, Model


def hold_weights(session: Session, sha256: str) -> None:
    """Keep others from deleting these weights until the transaction ends.

    Whoever is about to refer to weights holds them, looks that they are there, and writes the row.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))


def delete_unreferenced(store: ArtifactStore, hashes: set[str]) -> set[str]:
    """Delete those of the weights that no row refers to, and name them; call it after the rows' transaction."""
    deleted = set()
    for sha256 in sorted(hashes):
        with transaction() as session:
            hold_weights(session, sha256)
            if not _referred(session, sha256):
                for name in store.names(weights_key(sha256)):
                    store.delete(f"{weights_key(sha256)}/{name}")
                deleted.add(sha256)
    return deleted


def _referred(session: Session, sha256: str) -> bool:
    queries = (
        select(Model.id).where(Model.weights_sha256 == sha256),
        # A checkpoint with a key keeps its own copy.
        select(Checkpoint.id).where(Checkpoint.weights_sha256 == sha256, Checkpoint.key.is_(None)),
        select(Evaluation.id).where(
            Evaluation.models.contains([{"weights_sha256": sha256}]), Evaluation.state.not_in(FINAL)
        ),
        select(Job.id).where(or_(Job.start_sha256 == sha256, Job.weights_sha256 == sha256), Job.state.not_in(FINAL)),
    )
    return any(session.scalar(query.limit(1)) is not None for query in queries)
