"""A fine-tuned model's card: what it was trained on, how, and what its job measured."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from manyicl_core.base_models.catalog import find_base_model
from manyicl_core.method.tasks import Task
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.evaluations.schemas import RecommendationObject
from manyicl_core.store.jobs.results import PairedResult, job_evaluation
from manyicl_core.store.jobs.use import SHOWN, tasks_of, template_example
from manyicl_core.store.tables import Job, Model

_MOST_LABELS = 20
_METHOD = "https://arxiv.org/abs/2506.11103"


def model_card(session: Session, store: ArtifactStore, model: Model) -> str:
    """The card as Markdown, with the metadata that model hubs read."""
    job = session.get_one(Job, model.job_id)
    tasks = tasks_of(store, model.dataset, model.task)
    evaluation = job_evaluation(session, job)
    results = evaluation.results if evaluation is not None else []
    recommendations = evaluation.recommendations if evaluation is not None else []
    if model.task is not None:
        results = [pair for pair in results if pair.tuned.task == model.task]
        recommendations = [row for row in recommendations if row.task == model.task]
    licence = _licence(model.base_model)
    parts = [
        _metadata(model, licence),
        f"# {model.id}\n",
        _summary(model, job, licence),
        "## Data\n",
        f"Training file `{job.training_file}`, validation file `{job.validation_file or 'none'}`, dataset SHA-256 "
        f"`{model.dataset}`.\n",
        _task_table(tasks),
        "## Hyperparameters\n",
        _table(["name", "value"], _hyperparameters(job)),
        "## Results\n",
        _results(model, results, recommendations),
        "## Use\n",
        _use(model, tasks),
    ]
    return "\n".join(parts)


def _metadata(model: Model, licence: str | None) -> str:
    library = "peft" if model.adaptation == "lora" else "transformers"
    lines = [f"base_model: {json.dumps(model.base_model)}", f"library_name: {library}", "tags: [manyicl]"]
    if licence is not None:
        lines.append(f"license: {licence}")
    return "\n".join(["---", *lines, "---", ""])


def _summary(model: Model, job: Job, licence: str | None) -> str:
    kind = "LoRA adapter" if model.adaptation == "lora" else "full fine-tune"
    what = f"A {kind} of `{model.base_model}`, trained with the objective `{job.options['objective']}` of [many-shot "
    what += f"in-context fine-tuning]({_METHOD})"
    if model.step is not None:
        what += f"; the checkpoint of step {model.step}"
    terms = f"`{licence}`" if licence else "not stated here; see the base model's own page"
    return f"{what}. Job `{job.id}`, weights SHA-256 `{model.weights_sha256}`.\n\nLicence of the base model: {terms}.\n"


def _task_table(tasks: Sequence[Task]) -> str:
    rows = [
        [
            task.definition.name,
            task.definition.role,
            task.definition.metric,
            task.definition.instruction,
            _labels(task.definition.labels),
            len(task.demonstrations),
            len(task.queries),
        ]
        for task in tasks
    ]
    return _table(["task", "role", "metric", "instruction", "labels", "examples", "queries"], rows)


def _labels(labels: list[str] | None) -> str:
    if labels is None:
        return "any text"
    rest = len(labels) - _MOST_LABELS
    return "; ".join(labels[:_MOST_LABELS]) + (f"; and {rest} more in manyicl.json" if rest > 0 else "")


def _hyperparameters(job: Job) -> list[tuple[str, Any]]:
    shown = {key: value for key, value in job.options.items() if key not in ("evaluation", "adaptation")}
    totals = {key: value for key, value in (job.plan or {}).items() if key != "tasks"}
    values = {**job.hyperparameters, "seed": job.seed, **shown, **totals, "trained_tokens": job.trained_tokens}
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]


def _results(model: Model, results: Sequence[PairedResult], recommendations: Sequence[RecommendationObject]) -> str:
    if not results:
        return "The job measured nothing: it had no validation file.\n"
    rows = []
    warnings = []
    for pair in sorted(results, key=lambda pair: (pair.base.role != "train", pair.base.task, pair.base.k)):
        base, tuned, difference = pair.base, pair.tuned, pair.difference
        interval = f"{difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" if difference else ""
        verdict = (difference.verdict or "").replace("_", " ") if difference else ""
        baseline = f"{tuned.baseline.value:.3f}" if tuned.baseline else ""
        figures = [baseline, f"{base.value:.3f}", f"{tuned.value:.3f}", interval, verdict]
        rows.append([base.task, base.role, base.k, base.metric, *figures])
        warnings += [f"{base.task}, k={base.k}: {warning.message}" for warning in tuned.warnings]
    text = _table(["task", "role", "k", "metric", "baseline", "base", "tuned", "difference (95 %)", "verdict"], rows)
    text += "\nThe baseline is always giving the most frequent answer.\n"
    if warnings:
        text += "\nWarnings of the tuned model:\n\n" + "".join(f"- {_cell(warning)}\n" for warning in warnings)
    if recommendations:
        recommended = [
            [row.task or "all tasks", "none" if row.k is None else row.k, row.reason] for row in recommendations
        ]
        text += "\n" + _table(["task", "recommended k", "reason"], recommended)
    if model.step is not None:
        text += "\nMeasured with the job's final weights, not with this checkpoint's.\n"
    return text


def _use(model: Model, tasks: Sequence[Task]) -> str:
    load = "AutoModelForCausalLM.from_pretrained(folder)"
    imports = "from transformers import AutoModelForCausalLM"
    if model.adaptation == "lora":
        load = f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{model.base_model}"), folder)'
        imports = f"from peft import PeftModel\n{imports}"
    name = shlex.quote(tasks[0].definition.name)
    example = template_example(tasks[0])
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", example)), default=0))  # longer than any within
    return f"""In the folder that holds this card, with torch, transformers and peft installed:

```
python predict.py --task {name} "the input that is asked"
```

In other programs:

```python
{imports}

model = {load}
```

The prompt is the task's instruction, demonstrations, and the input. After it the model writes a space, the answer and \
a line break; of a task with labels, take the most probable label. A prompt of the task {_cell(name)}:

{fence}
{example}
{fence}

Each part (instruction, `Input: …` up to `Output:`, answer, line break) is tokenized by itself, without special \
tokens, and the ids are joined, after the tokenizer's own start token, if it has one; `predict.py` does so. In answers \
a backslash is `\\\\` and a line break `\\n`. `manyicl.json` has these templates, and each task's instruction, labels \
and up to {SHOWN} demonstrations, which **are examples of the training file**: take them out before you give the \
folder to anybody who must not see them. The model was trained on up to {model.trained_tokens} tokens of \
demonstrations: show it more than these, with `--examples`.

Encoder version {model.encoder_version}, template hash `{model.template_hash}`.
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    """Any text as one cell: a task's name may hold whatever its owner likes."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _licence(base_model: str) -> str | None:
    entry = find_base_model(base_model)
    return None if entry is None else entry.licence
