"""Users' training files: JSONL into tasks, with every problem named by its line.

Two shapes of line, which one file may mix:

- ``{"task": …, "input": …, "output": …}``
- OpenAI chat: ``{"messages": [system?, user, assistant]}``; lines with the same system message
  are one task, and that message is its instruction.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from manyicl_core.method.encoding import Encoder
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.method.tasks import MAX_INSTRUCTION_CHARACTERS, Example, Task, TaskDefinition

MAX_LINE_CHARACTERS = 1_000_000
_REPORTED = 10

_Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class InvalidDataset(ValueError):
    """A file that cannot be trained on; the message lists the first problems by line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        shown = "; ".join(problems[:_REPORTED])
        more = len(problems) - _REPORTED
        super().__init__(shown + (f"; and {more} more" if more > 0 else ""))


class _TaskLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    task: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    input: _Text
    output: _Text


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: _Text


class _ChatLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

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


def parse_rows(lines: Iterable[bytes]) -> list[Row]:
    """Read a training file; blank lines are skipped but counted.

    Raises:
        InvalidDataset: a line is not UTF-8, not JSON, of another shape, or has an empty text;
            or the file holds no example.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                rows.append(_parse_row(text, number))
        except UnicodeDecodeError:
            problems.append(f"line {number}: not UTF-8; save the file as UTF-8")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if not rows and not problems:
        problems.append("line 1: the file holds no example; write one JSON object a line")
    if problems:
        raise InvalidDataset(problems)
    return rows


def _parse_row(text: str, number: int) -> Row:
    if len(text) > MAX_LINE_CHARACTERS:
        raise ValueError(f"{len(text)} characters; a line may have {MAX_LINE_CHARACTERS}")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"invalid JSON ({error}); write one JSON object a line") from None
    if not isinstance(content, dict):
        raise ValueError('not a JSON object; write {"task": …, "input": …, "output": …}')
    try:
        if "messages" in content:
            return _chat_row(_ChatLine.model_validate(content), number)
        row = _TaskLine.model_validate(content)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None
    _refuse_nul(row.task)
    return Row(row.task, None, _example(row.input, row.output, number))


def _chat_row(line: _ChatLine, number: int) -> Row:
    messages = line.messages
    instruction = ""
    if messages[0].role == "system":
        instruction = messages[0].content.strip()
        _refuse_nul(instruction)
        if len(instruction) > MAX_INSTRUCTION_CHARACTERS:
            raise ValueError(
                f"the system message has {len(instruction)} characters; "
                f"an instruction may have {MAX_INSTRUCTION_CHARACTERS}"
            )
        messages = messages[1:]
    if [message.role for message in messages] != ["user", "assistant"]:
        raise ValueError(
            "a chat line holds an optional system message, one user and one assistant message; "
            "write each exchange on a line of its own"
        )
    example = _example(messages[0].content, messages[1].content, number)
    return Row(chat_task_name(instruction), instruction, example)


def _example(input_text: str, output: str, number: int) -> Example:
    _refuse_nul(input_text + output)
    example = Example(input=input_text.strip(), output=output.strip(), line=number)
    # Python strips a few control characters that the pattern of the field takes for text.
    if not example.input or not example.output:
        raise ValueError("the input or the output is empty; give it some text")
    return example


def _refuse_nul(text: str) -> None:
    if "\x00" in text:
        raise ValueError("a NUL character; remove it")


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("string_pattern_mismatch", "string_too_short"):
        return f"{field!r} is empty; give it some text"
    if first["type"] == "missing":
        return f'{field!r} is missing; a line is {{"task", "input", "output"}} or {{"messages"}}'
    if first["type"] == "extra_forbidden":
        return f"unknown field {field!r}; remove it"
    return f"{field!r}: {first['msg']}"


def build_tasks(training: list[Row], validation: list[Row], definitions: list[TaskDefinition]) -> list[Task]:
    """Group rows into tasks.

    With no definitions every task of the training file is trained on, with the defaults. With
    definitions, they and the training file must name the same tasks; a definition names a chat
    task by its name or by giving the system message as its instruction.

    Raises:
        InvalidDataset: tasks do not match, a label is unknown, an input stands in both files, or
            nothing is left to train on.
    """
    named = {definition.instruction.strip(): definition.name for definition in definitions if definition.instruction}
    groups = _group(training, named)
    queries = _group(validation, named)
    if not definitions:
        definitions = [
            TaskDefinition(name=name, instruction=rows[0].instruction or "") for name, rows in groups.items()
        ]
    _check_names(definitions, groups, queries)
    problems: list[str] = []
    tasks = []
    for definition in definitions:
        task = Task(
            definition=_with_instruction(definition, groups[definition.name]),
            demonstrations=[row.example for row in groups[definition.name]],
            queries=[row.example for row in queries.get(definition.name, [])],
        )
        problems += [*_label_problems(task), *_duplicate_problems(task)]
        tasks.append(task)
    if not any(task.definition.role == "train" for task in tasks):
        problems.append("every task is held out; give at least one task the role 'train'")
    if problems:
        raise InvalidDataset(problems)
    return tasks


def check_fits(tasks: list[Task], encoder: Encoder, max_sequence_tokens: int, context_length: int) -> None:
    """Tokenise every trained example and every query once and refuse what has no room.

    Raises:
        InvalidDataset: an example is longer than a sequence, or a query than the model reads.
    """
    problems = [
        str(problem)
        for task in tasks
        if task.definition.role == "train"
        for problem in EncodedTask(task, encoder).check_fits(max_sequence_tokens)
    ]
    for task in tasks:
        head = len(encoder.instruction(task.definition.instruction))
        for query in task.queries:
            tokens = head + len(encoder.example(query))
            if tokens > context_length:
                problems.append(
                    f"line {query.line} of the validation file: the query of task {task.definition.name!r} takes "
                    f"{tokens} tokens with its instruction and answer, and the model reads at most {context_length}; "
                    "shorten it"
                )
    if problems:
        raise InvalidDataset(problems)


def _group(rows: list[Row], named: dict[str, str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = row.task if row.instruction is None else named.get(row.instruction, row.task)
        groups.setdefault(name, []).append(row)
    return groups


def _with_instruction(definition: TaskDefinition, rows: list[Row]) -> TaskDefinition:
    if definition.instruction or not rows[0].instruction:
        return definition
    return definition.model_copy(update={"instruction": rows[0].instruction})


def _check_names(
    definitions: list[TaskDefinition], groups: dict[str, list[Row]], queries: dict[str, list[Row]]
) -> None:
    names = [definition.name for definition in definitions]
    problems = [f"task {name!r} is defined twice" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [
        f"task {name!r} is defined but has no line in the training file" for name in names if name not in groups
    ]
    for where, found in (("training", groups), ("validation", queries)):
        problems += [
            f"line {rows[0].example.line}: the {where} file has task {name!r}, which is not among the job's tasks"
            for name, rows in found.items()
            if name not in names
        ]
    if problems:
        raise InvalidDataset(problems)


def _label_problems(task: Task) -> Iterator[str]:
    labels = task.definition.labels
    if labels is None:
        return
    for where, examples in (("", task.demonstrations), (" of the validation file", task.queries)):
        for example in examples:
            if example.output not in labels:
                yield (
                    f"line {example.line}{where}: {example.output[:60]!r} is not a label of task "
                    f"{task.definition.name!r}; its labels are {', '.join(labels[:20])}"
                )


def _duplicate_problems(task: Task) -> Iterator[str]:
    trained = {_normal(example.input): example.line for example in task.demonstrations}
    for example in task.queries:
        if line := trained.get(_normal(example.input)):
            yield (
                f"line {example.line} of the validation file: the same input is on line {line} of the training "
                f"file (task {task.definition.name!r}); remove one"
            )


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
