"""Rows into tasks: definitions and files must say the same, and every example must fit."""

from collections import Counter
from collections.abc import Iterator, Sequence

from manyicl_core.method.dataset import InvalidDataset, Row
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.equality import canonical, visible
from manyicl_core.method.labels import MAX_LABEL_TOKENS
from manyicl_core.method.leaks import exact_leaks
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.method.tasks import MAX_TASKS, Example, ListedLabels, Task, TaskDefinition


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
    named = {
        canonical(definition.instruction.strip()): definition.name
        for definition in definitions
        if definition.instruction
    }
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
        demonstrations, unlisted = _listed(definition, groups[definition.name], "")
        tested, unlisted_too = _listed(definition, queries.get(definition.name, []), " of the validation file")
        problems += [*unlisted, *unlisted_too]
        tasks.append(
            Task(
                definition=_with_instruction(definition, groups[definition.name]),
                demonstrations=demonstrations,
                queries=tested,
            )
        )
    problems += exact_leaks(tasks)
    if problems:
        raise InvalidDataset(problems)
    return tasks


def check_fits(tasks: list[Task], encoder: Encoder, max_sequence_tokens: int, context_length: int) -> None:
    """Tokenise every trained example and every query once and refuse what has no room.

    Raises:
        InvalidDataset: an instruction or an example is longer than a sequence, a query than the model reads, or a
            label than what an answer may have.
    """
    problems = [*_long_instructions(tasks, encoder, max_sequence_tokens, context_length), *_bad_labels(tasks, encoder)]
    if problems:  # else every example of a task would be named
        raise InvalidDataset(problems)
    problems += [
        str(problem)
        for task in tasks
        if task.definition.role == "train"
        for problem in EncodedTask(task, encoder).check_fits(max_sequence_tokens)
    ]
    problems += [str(problem) for problem in unfit_queries(tasks, encoder, context_length)]
    if problems:
        raise InvalidDataset(problems)


def _long_instructions(
    tasks: list[Task], encoder: Encoder, max_sequence_tokens: int, context_length: int
) -> Iterator[str]:
    for task in tasks:
        name, tokens = task.definition.name, len(encoder.instruction(task.definition.instruction))
        if task.definition.role == "train" and tokens >= max_sequence_tokens:
            yield (
                f"the instruction of task {name!r} takes {tokens} tokens, which leaves no room for an example, as "
                f"max_sequence_tokens is {max_sequence_tokens}; shorten it or raise max_sequence_tokens"
            )
        elif tokens >= context_length:
            yield (
                f"the instruction of task {name!r} takes {tokens} tokens, and the model reads at most "
                f"{context_length}; shorten it"
            )


def _bad_labels(tasks: list[Task], encoder: Encoder) -> Iterator[str]:
    for task in tasks:
        for _, problem in label_problems(task.definition.labels or [], encoder):
            yield f"task {task.definition.name!r}: {problem}"


def label_problems(labels: Sequence[str], encoder: Encoder) -> Iterator[tuple[int, str]]:
    """Every label that this model cannot answer with, by its position, and why."""
    found: dict[tuple[int, ...], str] = {}
    for position, label in enumerate(labels):
        ids = tuple(encoder.answer(label))
        if len(ids) > MAX_LABEL_TOKENS:
            yield (
                position,
                f"the label {label[:60]!r} has {len(ids)} tokens and may have {MAX_LABEL_TOKENS}; "
                "shorten it, also in the examples, or leave the labels out",
            )
        if (other := found.setdefault(ids, label)) != label:
            yield (
                position,
                f"the model's tokenizer does not tell the labels {visible(other)} and {visible(label)} apart; keep one",
            )


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
        name = row.task if row.instruction is None else named.get(canonical(row.instruction), row.task)
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


def _listed(definition: TaskDefinition, rows: list[Row], where: str) -> tuple[list[Example], list[str]]:
    """The rows' examples with their labels as the definition lists them, and what is wrong with the others."""
    examples = [row.example for row in rows]
    if definition.labels is None:
        return examples, []
    labels = ListedLabels(definition.labels)
    listed, problems = [], []
    for example in examples:
        label = labels.find(example.output)
        listed.append(example if label is None else example.model_copy(update={"output": label}))
        if label is None:
            problems.append(
                f"line {example.line}{where}: {visible(example.output[:60])} is not a label of task "
                f"{definition.name!r}; its labels are {labels.told()}"
            )
    return listed, problems
