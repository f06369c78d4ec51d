"""What a field takes, in words, out of the JSON Schema of a body: the schema is the only place that says it."""

import json
from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]

_NOT_BLANK = r"\S"
_MAX_SHOWN = 40
_MAX_NAMES = 4


def shown(value: Any) -> str:
    """A value that somebody sent, short enough for a sentence."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    written = _quoted(value)
    return written if len(written) <= _MAX_SHOWN else f"a text of {len(str(value))} characters"


def schemas_at(document: Schema, schema: Schema, path: Sequence[str | int]) -> list[Schema]:
    """Every schema that the value at ``path`` may follow; none where nothing is known of it.

    Args:
        document: where ``$ref`` points into.
        schema: that of the whole body.
        path: names of fields, and numbers of items.
    """
    found = _alternatives(document, schema)
    for part in path:
        below = [_below(each, part) for each in found]
        found = [each for one in below if one is not None for each in _alternatives(document, one)]
    return found


def key_schemas(objects: Sequence[Schema]) -> list[Schema]:
    """What the names in any of ``objects`` follow, where they are the client's own."""
    named = [each["propertyNames"] for each in objects if "propertyNames" in each]
    matched = [{"pattern": pattern} for each in objects for pattern in each.get("patternProperties", {})]
    return [{"type": "string", **each} for each in named + matched] or [{"type": "string"}]


def in_words(document: Schema, alternatives: Sequence[Schema]) -> str:
    """What may be sent where any of ``alternatives`` holds, such as ``'auto' or a whole number from 1 to 50``.

    ``null`` is told only where it is all: it asks for what leaving the field out asks for.
    """
    told = dict.fromkeys(words for each in alternatives for words in _words(document, each))
    told.pop("null", None)
    *others, last = told or {"null": None}
    return f"{', '.join(others)} or {last}" if others else last


def _alternatives(document: Schema, schema: Schema) -> list[Schema]:
    if "$ref" in schema:
        target: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return _alternatives(document, target)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches is None:
        return [schema]
    return [each for branch in branches for each in _alternatives(document, branch)]


def _below(schema: Schema, part: str | int) -> Schema | None:
    if isinstance(part, int):
        below = schema.get("items")
    else:
        of_any_name = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        below = schema.get("properties", {}).get(part, of_any_name[0])
    return below if isinstance(below, dict) else None


def _words(document: Schema, schema: Schema) -> list[str]:
    if "const" in schema or "enum" in schema:
        return [_quoted(value) for value in schema.get("enum") or [schema["const"]]]
    match schema.get("type"):
        case "string" if "contentMediaType" in schema:
            words = "a file"
        case "string":
            words = "a text" + _size(schema, "Length", " characters") + _pattern(schema)
        case "integer":
            words = "a whole number" + _range(schema)
        case "number":
            words = "a number" + _range(schema)
        case "boolean":
            words = "true or false"
        case "array":
            words = _list(document, schema)
        case "object":
            words = "an object" + _names(list(schema.get("properties", {})))
        case "null":
            words = "null"
        case _:
            words = "any value"
    return [words]


def _quoted(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)


def _list(document: Schema, schema: Schema) -> str:
    if schema.get("maxItems") == 0:
        return "an empty list"
    each = in_words(document, _alternatives(document, schema.get("items", {})))
    return "a list" + _size(schema, "Items", "") + f", each {each}"


def _names(names: list[str]) -> str:
    if not names:
        return ""
    return " with " + ", ".join(names[:_MAX_NAMES]) + (" and more" if len(names) > _MAX_NAMES else "")


def _size(schema: Schema, what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if least is not None and most is not None:
        return f" of {least} to {most}{unit}"
    if most is not None:
        return f" of up to {most}{unit}"
    return f" of at least {least}{unit}" if least is not None else ""


def _pattern(schema: Schema) -> str:
    pattern = schema.get("pattern")
    if pattern is None:
        return ""
    return " that is more than white space" if pattern == _NOT_BLANK else f" that matches {pattern}"


def _range(schema: Schema) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    told = [f"{words} {_number(bound)}" for words, bound in bounds.items() if bound is not None]
    return " " + " and ".join(told) if told else ""


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)
