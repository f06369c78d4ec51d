"""Read a project's files into tasks."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.jsonl import jsonl_lines
from manyicl_core.method.dataset import MAX_LINE_BYTES, InvalidDataset, Row
from manyicl_core.method.dataset import read_rows as rows_of_lines
from manyicl_core.method.task_building import build_tasks
from manyicl_core.method.tasks import Task, TaskDefinition
from manyicl_core.objects import ArtifactStore
from manyicl_core.settings import get_settings
from manyicl_core.store.files.content import content_key
from manyicl_core.store.files.service import get_file


def read_tasks(
    session: Session,
    store: ArtifactStore,
    project_id: str,
    training_file: str,
    validation_file: str | None,
    definitions: list[TaskDefinition],
) -> list[Task]:
    """The tasks of a training file (demonstrations) and a validation file (queries).

    Raises:
        NotFound: the project has no such file.
        InvalidRequest: a line is wrong, or the files and the definitions do not fit together.
    """
    training = list(read_rows(session, store, project_id, training_file, "training_file"))
    validation: list[Row] = []
    if validation_file is not None:
        validation = list(read_rows(session, store, project_id, validation_file, "validation_file"))
    try:
        return build_tasks(training, validation, definitions)
    except InvalidDataset as error:
        raise InvalidRequest(str(error), "training_file", "invalid_file") from error


def read_rows(session: Session, store: ArtifactStore, project_id: str, file_id: str, param: str) -> Iterator[Row]:
    """The lines of one file, one at a time.

    Raises:
        NotFound: the project has no such file.
        InvalidRequest: at the end: a line is wrong.
    """
    file = get_file(session, project_id, file_id, param)
    largest = get_settings().max_file_bytes
    try:
        yield from rows_of_lines(jsonl_lines(store.stream(content_key(file.id)), largest, MAX_LINE_BYTES))
    except InvalidDataset as error:
        raise InvalidRequest(f"{file.filename}: {error}", param, "invalid_file") from error
    except FileNotFoundError as error:
        raise NotFound("file", file.id, param) from error
