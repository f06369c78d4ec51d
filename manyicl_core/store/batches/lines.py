"""The lines of a batch's input file: one request each, checked before anything is answered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from manyicl_core.errors import UserError
from manyicl_core.field_errors import MISSING, UNKNOWN, first_problem
from manyicl_core.jsonl import UnreadableFile, chunks_of, jsonl_lines
from manyicl_core.store.batches.schemas import LineProblem
from manyicl_core.store.files.content import MAX_BATCH_BYTES
from manyicl_core.strict_json import parse_json

MAX_REQUESTS = 50_000
MAX_LINE_BYTES = 4_000_000
_REPORTED = 100


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of the file, under the name that its client gave it."""

    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What a file holds.

    Attributes:
        total: its requests.
        model: the one that they all name, or None.
        problems: the first of what is wrong, in the order of the lines; empty: all is well.
    """

    total: int
    model: str | None
    problems: list[LineProblem]


def read_requests(path: Path) -> Iterator[BatchRequest]:
    """The requests of a checked file, in its order."""
    for _, line in _numbered_lines(path):
        content = parse_json(line.decode())
        yield BatchRequest(content["custom_id"], content["body"])


def check_file(path: Path, endpoint: str, check_body: Callable[[dict[str, Any]], None]) -> CheckedFile:
    """Read every line.

    Args:
        path: the file.
        endpoint: what every request's ``url`` must be.
        check_body: raises ``UserError`` for a body that the endpoint would refuse unread.
    """
    problems: list[LineProblem] = []
    seen: dict[str, int] = {}
    models: set[str] = set()
    total = number = 0
    try:
        for number, line in _numbered_lines(path):
            total += 1
            if total > MAX_REQUESTS:
                too_many = f"the file holds more than {MAX_REQUESTS} requests; split it into several batches"
                problems.append(LineProblem(code="too_many_requests", line=number, message=too_many, param=None))
                break
            try:
                models.add(_check_line(line, number, endpoint, check_body, seen))
            except UserError as error:
                code = error.code or "invalid_request"
                problems.append(LineProblem(code=code, line=number, message=error.message, param=error.param))
    except UnreadableFile as error:
        problems.append(LineProblem(code="unreadable_file", line=number + 1, message=str(error), param=None))
    if total == 0 and not problems:
        empty = "the file holds no request; write one JSON object a line"
        problems.append(LineProblem(code="empty_file", line=None, message=empty, param=None))
    if len(problems) > _REPORTED:
        more = f"{len(problems) - _REPORTED} more lines are wrong; correct these first"
        problems[_REPORTED:] = [LineProblem(code="more_errors", line=None, message=more, param=None)]
    return CheckedFile(total, models.pop() if len(models) == 1 else None, problems)


def _check_line(
    line: bytes, number: int, endpoint: str, check_body: Callable[[dict[str, Any]], None], seen: dict[str, int]
) -> str:
    """Refuse a wrong line; give the model that a right one names."""
    request = _parse(line)
    if request.url != endpoint:
        raise UserError(
            f"url: {request.url!r} is not the batch's endpoint; write {endpoint!r}", "url", "mismatched_endpoint"
        )
    if (first := seen.setdefault(request.custom_id, number)) != number:
        raise UserError(
            f"custom_id: {request.custom_id!r} is line {first}'s already; give each request its own",
            "custom_id",
            "duplicate_custom_id",
        )
    if request.body.get("stream"):
        raise UserError("body.stream: a batch has nobody to stream to; remove it", "body.stream", "invalid_request")
    try:
        check_body(request.body)
    except UserError as error:
        param = "body" if error.param is None else f"body.{error.param}"
        message = f"body.{error.message}" if error.param and error.message.startswith(error.param) else error.message
        raise UserError(message, param, error.code) from error
    return str(request.body["model"])


def _parse(line: bytes) -> _Line:
    if len(line) > MAX_LINE_BYTES:
        raise UserError(f"a line may have {MAX_LINE_BYTES} bytes; shorten it", code="line_too_long")
    try:
        content = parse_json(line.decode())
    except UnicodeDecodeError as error:
        raise UserError("not UTF-8; save the file as UTF-8", code="invalid_json_line") from error
    except ValueError as error:
        raise UserError(f"{error}; write one JSON object a line", code="invalid_json_line") from error
    if not isinstance(content, dict):
        raise UserError("not a JSON object; write one a line", code="invalid_json_line")
    try:
        return _Line.model_validate(content)
    except ValidationError as error:
        raise body_error(error, content, _Line) from error


def body_error(error: ValidationError, body: dict[str, Any], model: type[BaseModel]) -> UserError:
    """The first thing that pydantic finds wrong with ``body``, which is to be a ``model``, named by its field."""
    schema = _schema(model)
    problem = first_problem(error.errors(), body, schema, schema)
    code = {MISSING: "missing_required_parameter", UNKNOWN: "unknown_parameter"}.get(problem.kind, "invalid_request")
    return UserError(problem.message, problem.field or None, code)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1; a line that is too long is cut."""
    with path.open("rb") as file:
        lines = jsonl_lines(chunks_of(file), MAX_BATCH_BYTES, MAX_LINE_BYTES)
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, text
