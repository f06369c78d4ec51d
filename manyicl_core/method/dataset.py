"""Users' training files: JSONL lines into rows, with every problem named by its line.

Two shapes of line, which one file may mix:

- ``{"task": …, "input": …, "output": …}``
- OpenAI chat: ``{"messages": [system?, user, assistant, user, assistant, …]}``; lines with the same
  system message are one task, and that message is its instruction. A conversation is one example:
  its last exchange behind the earlier ones. ``"weight": 0`` on an assistant message takes it out
  of the targets (``FineTuneChatCompletionRequestAssistantMessage`` of OpenAI's API).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from manyicl_core.jsonl import UnreadableFile
from manyicl_core.method.tasks import MAX_TEXT_CHARACTERS, Example, Turn
from manyicl_core.strict_json import parse_json

MAX_LINE_CHARACTERS = MAX_TEXT_CHARACTERS
MAX_LINE_BYTES = 4 * MAX_LINE_CHARACTERS
_REPORTED = 10
_READ_ON = 1000  # problems, and then no further
_SHOWN_CHARACTERS = 200  # of a name that a stranger gave
_SYSTEM_ROLES = ("system", "developer")
_TOOL_ROLES = ("tool", "function")
_TOOL_FIELDS = ("tools", "functions", "parallel_tool_calls", "tool_calls", "tool_call_id", "function_call")

_Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class InvalidDataset(ValueError):
    """A file that cannot be trained on; the message lists the first problems by line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        shown = "; ".join(problems[:_REPORTED])
        more = len(problems) - _REPORTED
        super().__init__(shown + (f"; and {more} more" if more > 0 else ""))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, fields: object) -> object:
        # Clients write out every optional field of a message, and tables every column of a mixed file: one that is
        # null says nothing.
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class _TaskLine(_Part):
    task: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    input: _Text
    output: _Text


def _as_integer(value: object) -> object:
    """A column of integers with gaps is written as 1.0 and 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Text
    weight: Annotated[int, BeforeValidator(_as_integer), Field(ge=0, le=1)] = 1


class _ChatLine(_Part):
    messages: list[_Message] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class Row:
    """One line's example and the task it belongs to; ``instruction`` is None for task lines."""

    task: str
    instruction: str | None
    example: Example


def chat_task_name(instruction: str) -> str:
    """The name of the task that chat lines with this system message make."""
    return "chat-" + hashlib.sha256(instruction.encode()).hexdigest()[:8]


def read_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a training file, one at a time; blank lines are skipped but counted.

    Every example has at least one answer that may be a target.

    Raises:
        InvalidDataset: at the end: a line is not UTF-8, not JSON, of another shape, too long, or
            has an empty text; or the file holds no example, or cannot be read to its end.
    """
    problems: list[str] = []
    number = found = 0
    try:
        for number, line in enumerate(lines, start=1):
            if len(problems) >= _READ_ON:
                break
            try:
                row = _parse_line(line, number)
            except ValueError as error:
                problems.append(f"line {number}: {error}")
            else:
                if row is not None:
                    found += 1
                    yield row
    except UnreadableFile as error:
        problems.append(f"line {number + 1}: {error}")
    if not found and not problems:
        problems.append("line 1: the file holds no example; write one JSON object a line")
    if problems:
        raise InvalidDataset(problems)


def _parse_line(line: bytes, number: int) -> Row | None:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"more than {MAX_LINE_BYTES} bytes; a line may have {MAX_LINE_CHARACTERS} characters")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    if "\x00" in text:
        raise ValueError("a NUL character; remove it, or save the file as UTF-8 if it is UTF-16")
    return _parse_row(text, number) if text else None


def _parse_row(text: str, number: int) -> Row:
    if len(text) > MAX_LINE_CHARACTERS:
        raise ValueError(f"{len(text)} characters; a line may have {MAX_LINE_CHARACTERS}")
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError('not a JSON object; write {"task": …, "input": …, "output": …}')
    try:
        if content.get("messages") is not None:
            return _chat_row(_ChatLine.model_validate(content).messages, number)
        row = _TaskLine.model_validate(content)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None
    turn = _turn(row.input, row.output)
    return Row(row.task, None, Example(input=turn.input, output=turn.output, line=number))


def _chat_row(messages: list[_Message], number: int) -> Row:
    _check_roles([message.role for message in messages])
    for index, message in enumerate(messages):
        if message.role != "assistant" and "weight" in message.model_fields_set:
            raise ValueError(f"'messages.{index}.weight': only an assistant message has a weight; remove it")
    instruction = ""
    if messages[0].role in _SYSTEM_ROLES:
        instruction = messages[0].content.strip()
        messages = messages[1:]
    turns = [
        _turn(asked.content, answered.content, answered.weight == 1)
        for asked, answered in zip(messages[::2], messages[1::2], strict=True)
    ]
    if not any(turn.trained for turn in turns):
        raise ValueError(
            "every assistant message has the weight 0, so there is nothing to learn; "
            "give at least one the weight 1, or remove the line"
        )
    *earlier, last = turns
    example = Example(input=last.input, output=last.output, line=number, earlier=earlier, trained=last.trained)
    return Row(chat_task_name(instruction), instruction, example)


def _check_roles(roles: list[str]) -> None:
    """A conversation is user, assistant, user, assistant … after an optional system message."""
    first = int(roles[0] in _SYSTEM_ROLES)
    if roles[first] == "assistant":
        raise ValueError(f"'messages.{first}' is from the assistant; a conversation starts with a user message")
    for index in range(first, len(roles)):
        if roles[index] in _SYSTEM_ROLES:
            raise ValueError(f"'messages.{index}' is a {roles[index]} message; only the first message may be one")
        if index > first and roles[index] == roles[index - 1]:
            raise ValueError(
                f"'messages.{index - 1}' and 'messages.{index}' are both from the {roles[index]}; "
                "join them into one message"
            )
    if roles[-1] != "assistant":
        raise ValueError("the last message is from the user; end the conversation with the assistant's answer")


def _turn(input_text: str, output: str, trained: bool = True) -> Turn:
    turn = Turn(input=input_text.strip(), output=output.strip(), trained=trained)
    # Python strips a few control characters that the pattern of the field takes for text.
    if not turn.input or not turn.output:
        raise ValueError("the input or the output is empty; give it some text")
    return turn


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    # A message that calls a tool lacks its content too; the tool is what the user must know of.
    first = next((each for each in problems if _is_about_tools(each["loc"][-1], each["input"])), problems[0])
    field = ".".join(str(part) for part in first["loc"])[:_SHOWN_CHARACTERS]
    said = f"{field!r}: {first['msg']}"
    if _is_about_tools(first["loc"][-1], first["input"]):
        said = f"{field!r}: tools and functions are not supported; write what they say as text, or remove the line"
    elif first["type"] == "extra_forbidden":
        said = f"unknown field {field!r}; remove it"
    elif first["loc"][-1] == "content" and isinstance(first["input"], list):
        said = f"{field!r} is a list of parts; images and sound are not supported, write the text as one string"
    elif first["loc"][-1] == "weight":
        said = f"{field!r} must be 0 or 1"
    elif first["type"] in ("string_pattern_mismatch", "string_too_short"):
        said = f"{field!r} is empty; give it some text"
    elif first["type"] == "missing":
        said = f'{field!r} is missing; a line is {{"task", "input", "output"}} or {{"messages"}}'
    return said


def _is_about_tools(field: str | int, value: object) -> bool:
    return field in _TOOL_FIELDS or (field == "role" and value in _TOOL_ROLES)
