"""Rows into tasks: definitions and files must say the same, and every example must fit."""

from collections import Counter
from collections.abc import Iterator

from manyicl_core.method.dataset import InvalidDataset, Row
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.leaks import exact_leaks
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.method.tasks import MAX_TASKS, Task, TaskDefinition


class QueryDoesNotFit(ValueError):
    """A query that is longer, with its instruction and answer, than what the model reads."""

    def __init__(self, task: str, line: int, tokens: int, budget: int) -> None:
        self.task, self.line, self.tokens, self.budget = task, line, tokens, budget
        super().__init__(
            f"line {line} of the validation file: the query of task {task!r} takes {tokens} tokens with its "
            f"instruction and answer, and the model reads at most {budget}; shorten it"
        )


def build_tasks(training: list[Row], validation: list[Row], definitions: list[TaskDefinition]) -> list[Task]:
    """Group rows into tasks.

    With no definitions every task of the training file is trained on, with the defaults. With
    definitions, they and the training file must name the same tasks; a definition names a chat
    task by its name or by giving the system message as its instruction.

    Raises:
        InvalidDataset: tasks do not match or are too many, a label is unknown, or a tested input is
            trained on.
    """
    named = {definition.instruction.strip(): definition.name for definition in definitions if definition.instruction}
    groups = _group("training", training, named)
    queries = _group("validation", validation, named)
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
        problems += _label_problems(task)
        tasks.append(task)
    problems += exact_leaks(tasks)
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
    problems += [str(problem) for problem in unfit_queries(tasks, encoder, context_length)]
    if problems:
        raise InvalidDataset(problems)


def unfit_queries(tasks: list[Task], encoder: Encoder, context_length: int) -> Iterator[QueryDoesNotFit]:
    """Every query that is longer than what the model reads."""
    for task in tasks:
        head = len(encoder.instruction(task.definition.instruction))
        for query in task.queries:
            tokens = head + len(encoder.example(query))
            if tokens > context_length:
                yield QueryDoesNotFit(task.definition.name, query.line, tokens, context_length)


def _group(where: str, rows: list[Row], named: dict[str, str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = row.task if row.instruction is None else named.get(row.instruction, row.task)
        groups.setdefault(name, []).append(row)
        if len(groups) > MAX_TASKS:
            problem = f"line {row.example.line}: the {where} file has more than {MAX_TASKS} tasks"
            raise InvalidDataset([f"{problem}; give lines of one task the same `task`, or the same system message"])
    return groups


def _with_instruction(definition: TaskDefinition, rows: list[Row]) -> TaskDefinition:
    if definition.instruction or not rows[0].instruction:
        return definition
    return definition.model_copy(update={"instruction": rows[0].instruction})


def _check_names(
    definitions: list[TaskDefinition], groups: dict[str, list[Row]], queries: dict[str, list[Row]]
) -> None:
    names = Counter(definition.name for definition in definitions)
    problems = [f"task {name!r} is defined twice" for name in sorted(n for n, count in names.items() if count > 1)]
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
