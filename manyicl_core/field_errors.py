"""What is wrong with a body: the field, what was sent, and what may be sent there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyicl_core.allowed_values import Schema, in_words, key_schemas, schemas_at, shown

MISSING = "missing"
UNKNOWN = "extra_forbidden"
_UNTAGGED = ("union_tag_not_found", "union_tag_invalid")
_SAID_BY_US = ("value_error", "assertion_error")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        field: dotted; empty: the body itself.
        reason: what is wrong with it, and what to do.
        kind: pydantic's word, such as ``MISSING``.
    """

    field: str
    reason: str
    kind: str

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.field}: {self.reason}" if self.field else self.reason


def first_problem(errors: Sequence[Mapping[str, Any]], body: Any, document: Schema, schema: Schema) -> Problem:
    """The first thing that pydantic finds wrong, told by what ``schema`` allows at that place.

    Where a value may be of several kinds, pydantic complains for each of them. What counts is the complaint
    from deepest inside the value, as only the kind that was meant gets there; or one in our own words.

    Args:
        errors: pydantic's, not none; ``loc`` starts with the body's own fields.
        body: what was sent, as far as it is known.
        document: where the schema's ``$ref`` point into.
        schema: that of the body.
    """
    paths = [_path(error["loc"], error["type"], body) for error in errors]
    related = [(path, error) for path, error in zip(paths, errors, strict=True) if _are_related(path, paths[0])]
    deepest = max(len(path) for path, _ in related)
    inside = [(path, error) for path, error in related if len(path) == deepest]
    path, error = next((each for each in inside if each[1]["type"] in _SAID_BY_US), inside[0])
    kind = str(error["type"])
    if kind in _UNTAGGED:
        path = (*path, str(error["ctx"]["discriminator"]).strip("'"))
        kind = MISSING if kind == "union_tag_not_found" else kind
    field = ".".join(map(str, path))
    if kind == UNKNOWN:
        return Problem(field, "unknown field; remove it", kind)
    if kind == MISSING:
        return Problem(field, "this field is required" if field else "the body is missing; send a JSON object", kind)
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if error["loc"][-1:] == ("[key]",):
        keys = key_schemas(schemas_at(document, schema, path[:-1]))
        return Problem(field, f"as a key give {in_words(document, keys)}, not {shown(error['input'])}", kind)
    allowed = schemas_at(document, schema, path)
    if kind in _SAID_BY_US or not allowed:
        return Problem(field, said, kind)
    sent = error["ctx"]["tag"] if kind == "union_tag_invalid" else error["input"]
    if not field:
        return Problem(field, f"the body is {shown(sent)}; send a JSON object", kind)
    return Problem(field, f"give {in_words(document, allowed)}, not {shown(sent)}", kind)


def _are_related(path: Path, other: Path) -> bool:
    shared = min(len(path), len(other))
    return path[:shared] == other[:shared]


def _path(location: Sequence[str | int], kind: str, body: Any) -> Path:
    """Where the value lies that an error means; pydantic's names of the kinds of a union are left out."""
    names: list[str | int] = []
    value: Any = body
    for position, part in enumerate(location, start=1):
        if _is_in(part, value):
            value = value[part]
        elif position < len(location):
            continue
        elif kind != MISSING or not isinstance(value, Mapping):
            break
        names.append(part)
    return tuple(names)


def _is_in(part: str | int, value: Any) -> bool:
    return part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int)
