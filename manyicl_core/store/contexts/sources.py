"""Where a context's examples come from: a job's task, a file, or the request itself."""

from collections.abc import Iterable, Iterator

from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import base_model_folder
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.dataset import Row
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.equality import visible
from manyicl_core.method.task_building import label_problems
from manyicl_core.method.tasks import Example, ListedLabels, Task, TaskDefinition
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.models.service import ServedModel
from manyicl_core.store.tasks.datasets import load_dataset
from manyicl_core.store.tasks.files import read_rows

_PASTED = "examples"


def source_task(
    session: Session, store: ArtifactStore, project_id: str, model: ServedModel, request: CreateContext
) -> Task:
    """The task that a context shows, with all examples to choose from; ``line`` names an example.

    Raises:
        InvalidRequest: there is not exactly one source, it has no such task, an output is no label, or a label is too
            long.
        NotFound: the project has no such file.
    """
    _check_one_source(request)
    if request.examples is not None:
        task = _pasted_task(request)
    elif request.file is not None:
        task = _task_of_file(read_rows(session, store, project_id, request.file, "file"), request.task)
    else:
        assert request.task is not None
        task = _task_of_model(store, model, request.task)
    changes: dict[str, object] = {}
    if request.instruction is not None:
        changes["instruction"] = request.instruction
    if request.labels is not None:
        changes |= {"labels": request.labels, "metric": "accuracy"}
    definition = task.definition.model_copy(update=changes)
    _check_labels(load_encoder(base_model_folder(model.base)), definition, request)
    return Task(definition=definition, demonstrations=list(_listed(definition, task.demonstrations, request)))


def _check_one_source(request: CreateContext) -> None:
    if request.examples is not None and request.file is not None:
        raise InvalidRequest("examples and file exclude each other; give one of them", "file")
    if request.examples is not None and request.task is not None:
        raise InvalidRequest("pasted examples are one task; leave task out", "task")
    if request.examples is None and request.file is None and request.task is None:
        raise InvalidRequest("give examples, a file, or a task of the model's job", "examples")


def _pasted_task(request: CreateContext) -> Task:
    examples = [
        Example(input=example.input, output=example.output, line=position)
        for position, example in enumerate(request.examples or [])
    ]
    return Task(definition=TaskDefinition(name=_PASTED, metric="f1"), demonstrations=examples)


def _task_of_file(rows: Iterable[Row], name: str | None) -> Task:
    names: dict[str, None] = {}  # in the order of the file
    own: list[Row] = []  # the other tasks' rows are never all in memory
    for row in rows:
        names[row.task] = None
        if row.task == (name or next(iter(names))):
            own.append(row)
    told = ", ".join(list(names)[:20])
    if name is None and len(names) > 1:
        raise InvalidRequest(f"the file has the tasks {told}; name one of them", "task")
    if not own:
        raise InvalidRequest(f"the file has no task {name!r}; its tasks are {told}", "task")
    definition = TaskDefinition(name=own[0].task, instruction=own[0].instruction or "", metric="f1")
    return Task(definition=definition, demonstrations=[row.example for row in own])


def _task_of_model(store: ArtifactStore, model: ServedModel, name: str) -> Task:
    if model.dataset is None:
        raise InvalidRequest(
            "a base model, or one of another project, shows no tasks of its own; give examples or a file", "task"
        )
    tasks = {task.definition.name: task for task in load_dataset(store, model.dataset)}
    if name not in tasks:
        raise InvalidRequest(f"the model has no task {name!r}; its tasks are {', '.join(list(tasks)[:20])}", "task")
    return tasks[name]


def _listed(definition: TaskDefinition, examples: list[Example], request: CreateContext) -> Iterator[Example]:
    """The examples with their labels as they are listed."""
    if definition.labels is None:
        yield from examples
        return
    labels = ListedLabels(definition.labels)
    for example in examples:
        label = labels.find(example.output)
        if label is None:
            where, field = f"line {example.line}", "labels"
            if request.examples is not None:
                where = field = f"examples.{example.line}.output"
            raise InvalidRequest(
                f"{where}: {visible(example.output[:60])} is not one of the labels {labels.told()}; "
                "correct it or add the label",
                field,
            )
        yield example.model_copy(update={"output": label})


def _check_labels(encoder: Encoder, definition: TaskDefinition, request: CreateContext) -> None:
    """The engine would refuse every call of a context with such a one."""
    for position, problem in label_problems(definition.labels or [], encoder):
        field = "task" if request.labels is None else f"labels.{position}"
        raise InvalidRequest(f"{field}: {problem}", field)
