"""The content of an upload's parts in the artifact store."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict, InvalidRequest
from manyicl_core.ids import new_id
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.files.content import Measured
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Upload, UploadPart

_REMOVED_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class StoredPart:
    """What lies in the artifact store for a part of this id."""

    part_id: str
    bytes: int
    md5: str


@contextmanager
def stored_part(store: ArtifactStore, upload_id: str, chunks: Iterable[bytes]) -> Iterator[StoredPart]:
    """Store the content of a part to be; unless the block succeeds, it is taken away again.

    Raises:
        StorageFull: there is no room.
    """
    part_id = new_id("part_")
    measured = Measured(chunks)
    store.put_stream(_key(upload_id, part_id), measured)
    try:
        yield StoredPart(part_id, measured.bytes, measured.md5.hexdigest())
    except BaseException:
        store.delete(_key(upload_id, part_id))
        raise


def composed(store: ArtifactStore, upload_id: str, part_ids: Sequence[str]) -> Iterator[bytes]:
    """The parts' contents, one after the other, a few megabytes at a time.

    Raises:
        Conflict: the upload ended meanwhile, and its parts with it.
    """
    for part_id in part_ids:
        try:
            yield from store.stream(_key(upload_id, part_id))
        except FileNotFoundError as error:
            raise Conflict("The upload has ended meanwhile; start a new one") from error


def with_md5(chunks: Iterable[bytes], md5: str | None) -> Iterator[bytes]:
    """The chunks, which must have this MD5 in the end.

    Raises:
        InvalidRequest: they have another one.
    """
    measured = Measured(chunks)
    yield from measured
    if md5 is not None and measured.md5.hexdigest() != md5.lower():
        raise InvalidRequest(
            f"md5: the parts have {measured.md5.hexdigest()} and not {md5.lower()}; compare the parts, "
            "which GET /v1/uploads/{id}/parts lists with theirs, and send the wrong ones again",
            "md5",
        )


def remove_parts(store: ArtifactStore) -> int:
    """Take away the parts of uploads that are over, some uploads at a time; say how many uploads."""
    over = or_(Upload.state != "pending", Upload.is_late)
    with transaction() as session:
        query = select(Upload).where(Upload.keeps_parts, over).limit(_REMOVED_AT_ONCE)
        uploads = session.scalars(query.with_for_update(skip_locked=True)).all()
        for upload in uploads:
            _remove(session, store, upload)
    return len(uploads)


def _remove(session: Session, store: ArtifactStore, upload: Upload) -> None:
    """Also what a killed process has stored without a row."""
    for name in store.names(f"uploads/{upload.id}"):
        store.delete(_key(upload.id, name))
    session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
    upload.keeps_parts = False


def _key(upload_id: str, part_id: str) -> str:
    return f"uploads/{upload_id}/{part_id}"
