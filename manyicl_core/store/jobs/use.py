"""What a download says of the use of its weights: ``manyicl.json``, and the script that follows it."""

import json
from importlib.resources import files
from itertools import islice
from typing import Any

from manyicl_core.contract.weights import CONTRACT_FILE
from manyicl_core.method.encoding import (
    ANSWER_TEMPLATE,
    ENCODER_VERSION,
    ESCAPES,
    INSTRUCTION_TEMPLATE,
    PROMPT_TEMPLATE,
    SEPARATOR,
    STOP,
    escape_answer,
    template_hash,
)
from manyicl_core.method.sampling import context_order
from manyicl_core.method.tasks import Example, Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.tasks.datasets import load_dataset

SCRIPT = "predict.py"
SHOWN = 8
"""How many examples of a task a download holds, for the script to show."""
TEMPLATE = {
    "instruction": INSTRUCTION_TEMPLATE,
    "prompt": PROMPT_TEMPLATE,
    "answer": ANSWER_TEMPLATE,
    "stop": STOP,
    "separator": SEPARATOR,
    "escapes": ESCAPES,
}
_MOST_CHARACTERS = 4000  # of an example


def use_files(
    store: ArtifactStore, base_model: str, dataset: str, task: str | None, max_sequence_tokens: int
) -> list[tuple[str, bytes]]:
    """``manyicl.json`` for the tasks of a model, or the one that it is dedicated to, and the script.

    Raises:
        NotFound: the model has been deleted meanwhile, and its dataset with it.
    """
    tasks = tasks_of(store, dataset, task)
    told = {
        "base_model": base_model,
        "encoder_version": ENCODER_VERSION,
        "template_hash": template_hash(),
        "template": TEMPLATE,
        "example": template_example(tasks[0]),
        "max_sequence_tokens": max_sequence_tokens,
        "tasks": [_told(each) for each in tasks],
    }
    script = files("manyicl_core").joinpath(SCRIPT).read_bytes()
    return [(CONTRACT_FILE, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()), (SCRIPT, script)]


def tasks_of(store: ArtifactStore, dataset: str, task: str | None) -> list[Task]:
    """The tasks of a dataset, or the one of this name."""
    return [each for each in load_dataset(store, dataset) if task in (None, each.definition.name)]


def template_example(task: Task) -> str:
    """A whole prompt with made-up inputs: nothing of the task's examples is in it."""
    definition = task.definition
    text = INSTRUCTION_TEMPLATE.format(instruction=definition.instruction.strip()) if definition.instruction else ""
    answers = (definition.labels or ["the first answer", "the second answer"])[:2]
    for ordinal, answer in zip(("first", "second"), answers, strict=True):
        text += PROMPT_TEMPLATE.format(input=f"the {ordinal} input")
        text += ANSWER_TEMPLATE.format(output=escape_answer(answer)) + STOP + SEPARATOR
    return text + PROMPT_TEMPLATE.format(input="the input that is asked")


def _told(task: Task) -> dict[str, Any]:
    definition = task.definition
    return {
        **definition.model_dump(include={"name", "role", "metric", "instruction", "labels"}),
        "demonstrations": [_demonstration(example) for example in _shown(task)],
    }


def _shown(task: Task) -> list[Example]:
    """Few examples, of every label in turn, as a context of the service holds them."""
    outputs = [example.output for example in task.demonstrations]
    order = context_order(0, 0, task.definition.name, outputs, task.definition.labels is not None)
    short = (
        example for example in (task.demonstrations[index] for index in order) if _size(example) <= _MOST_CHARACTERS
    )
    return list(islice(short, SHOWN))


def _size(example: Example) -> int:
    earlier = sum(len(turn.input) + len(turn.output) for turn in example.earlier)
    return earlier + len(example.input) + len(example.output)


def _demonstration(example: Example) -> dict[str, Any]:
    shown: dict[str, Any] = {"input": example.input, "output": example.output}
    if example.earlier:
        shown["earlier"] = [{"input": turn.input, "output": turn.output} for turn in example.earlier]
    return shown
