"""Queries behind the context that a request names, and what the engine is asked about their labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from manyicl_core.answers.answer_text import engine_stops
from manyicl_core.answers.fields import Sampled
from manyicl_core.answers.grammars import answer_pattern
from manyicl_core.answers.objects import PlainTold, Told, Usage
from manyicl_core.base_models.catalog import base_model_folder
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.encoding import ANSWER_ENDS
from manyicl_core.method.shot_warnings import shots_warnings
from manyicl_core.method.tasks import Turn
from manyicl_core.objects import ArtifactStore
from manyicl_core.store.contexts.calls import NamedContext, named_context, named_prompts
from manyicl_core.store.contexts.salts import cache_salt, tenant
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import ANSWER_ROOM, HostedPrompt, hosted_prompts
from manyicl_core.store.models.service import ServedModel, find_model, served_model
from manyicl_core.store.session import transaction
from manyicl_core.store.tasks.task_models import find_task_model, task_models

LABEL_SCORES = "/v1/label_scores"

_TOLD_TASKS = 100


@dataclass(frozen=True, slots=True)
class Target:
    """What answers: a project's model, and what stands before the query, if anything.

    Attributes:
        manyicl: as the request says it; where its model is a task's id, with this task.
        tasks: the ids of the model's tasks by their names, where the model is tuned and nothing stands before
            the query.
    """

    project_id: str
    model: ServedModel
    manyicl: ManyiclChat | None
    context: NamedContext | None
    tasks: dict[str, str]

    @property
    def hosted(self) -> bool:
        """Whether queries stand behind demonstrations."""
        if self.context is not None:
            return True
        return self.manyicl is not None and not self.manyicl.is_regex_alone

    @property
    def is_tuned_alone(self) -> bool:
        """Whether a tuned model is asked as it was not trained: without a task."""
        return self.model.weights_sha256 is not None and not self.hosted

    def told_plain(self) -> PlainTold | None:
        """The answer's ``manyicl`` object where no demonstrations stand before the prompt."""
        if not self.is_tuned_alone:
            return None
        shown = dict(list(self.tasks.items())[:_TOLD_TASKS])
        remedy = (
            "name a task's own model (those in tasks, and all in GET /v1/models), or the task in manyicl.task"
            if shown
            else "give demonstrations in manyicl.context, or make a context"
        )
        message = f"This model was tuned to answer behind the demonstrations of a task, and no task is named: {remedy}"
        return {"tasks": shown, "warnings": [{"code": "no_task", "message": message}]}


def find_target(project_id: str, artifacts: ArtifactStore, model_id: str, manyicl: ManyiclChat | None) -> Target:
    """What a request names.

    Raises:
        NotFound: the project has no such model or context.
        NotReady: the context is being made.
        InvalidRequest: the model is a task's id, and another one or a context is named beside it.
    """
    with transaction() as session:
        task = find_task_model(session, artifacts, project_id, model_id)
        if task is not None:
            model_id, manyicl = task.model.id, _of_task(task.definition.name, manyicl)
        context = named_context(session, project_id, model_id, manyicl)
        model = served_model(session, project_id, model_id if context is None else context.model)
        own = find_model(session, project_id, model_id)
        target = Target(project_id, model, manyicl, context, {})
        if own is None or not target.is_tuned_alone:
            return target
        return replace(target, tasks={task.definition.name: task.id for task in task_models(artifacts, own)})


def _of_task(name: str, manyicl: ManyiclChat | None) -> ManyiclChat:
    """What a request to a task's own model says of demonstrations."""
    if manyicl is None:
        return ManyiclChat(task=name)
    if manyicl.context is not None or manyicl.task not in (None, name):
        raise InvalidRequest(
            "the model is a task already; leave manyicl.task and manyicl.context out, or name the task's model",
            "manyicl",
        )
    return manyicl.model_copy(update={"task": name})


def prompts_behind(
    artifacts: ArtifactStore, target: Target, queries: Sequence[str], param: str, earlier: Sequence[Turn] = ()
) -> list[HostedPrompt]:
    """Each query, after ``earlier`` exchanges, behind the target's demonstrations; both are the same for all.

    ``param`` is the field that the queries came in.

    Raises:
        NotFound: the model has no such task.
        InvalidRequest: the context and a query are longer than the model reads, or labels are to match a regex.
    """
    if target.context is not None:
        prompts = named_prompts(artifacts, target.model, target.context, queries, earlier, param)
    else:
        assert target.manyicl is not None
        prompts = hosted_prompts(artifacts, target.model, target.manyicl, queries, earlier)
    if prompts[0].labels is not None and target.manyicl is not None and target.manyicl.regex is not None:
        raise InvalidRequest("manyicl.regex: this task's answers are its labels; leave regex out", "manyicl.regex")
    return prompts


def engine_fields(target: Target, priority: int) -> dict[str, Any]:
    """What every request to the engine says: the weights' hash or the base model's id, and how urgent it is."""
    return {
        "model": target.model.weights_sha256 or target.model.base.id,
        "cache_salt": cache_salt(target.project_id, target.model.weights_sha256),
        "user": tenant(target.project_id),
        "priority": priority,
    }


def hosted_fields(prompt: HostedPrompt, body: Sampled, max_tokens: int) -> dict[str, Any]:
    """What asks for a completion behind demonstrations, those of ``prompt``; goes before what the client said."""
    temperature = body.temperature
    request = {
        "prefix_tokens": prompt.context_tokens,
        "stop_token_ids": [prompt.stop_token],
        # A task has one right answer: greedy unless the client asks otherwise.
        "temperature": 0.0 if temperature is None else temperature,
        "max_tokens": max_tokens,
    }
    if prompt.labels is not None:
        # A label is never cut short: it ends by itself, whatever stop or max_tokens say.
        request |= {"structured_outputs": {"choice": prompt.choices}, "stop": [], "max_tokens": ANSWER_ROOM}
    elif body.regex is not None:
        stop = [*engine_stops(body.stops, escaped=False), *ANSWER_ENDS]
        request |= {"structured_outputs": {"regex": answer_pattern(body.regex)}, "stop": stop}
    elif body.structured_outputs() is None:
        request["stop"] = [*engine_stops(body.stops, escaped=True), *ANSWER_ENDS]
    else:
        request["stop"] = engine_stops(body.stops, escaped=False)
    return request


def answer_stops(prompt: HostedPrompt, body: Sampled) -> tuple[str, ...]:
    """What ends an answer behind demonstrations, those of ``prompt``, as the client reads it; nothing ends a label."""
    return () if prompt.labels is not None else tuple(body.stops)


def label_scores_body(target: Target, prompts: Sequence[HostedPrompt], priority: int) -> dict[str, Any]:
    """What asks for the log-probability of every whole label behind every prompt of one context."""
    labels = prompts[0].labels
    assert labels is not None
    encoder = load_encoder(base_model_folder(target.model.base))
    return {
        **engine_fields(target, priority),
        "prefix_tokens": prompts[0].context_tokens,
        "prompts": [prompt.tokens for prompt in prompts],
        "labels": prompts[0].label_tokens or [encoder.answer(label) for label in labels],
    }


def cached_tokens(usage: Usage) -> int | None:
    """How many of the prompts' tokens were compiled before; None: the engine does not tell."""
    details = usage.get("prompt_tokens_details")
    return details["cached_tokens"] if details else None


def told(prompt: HostedPrompt, usage: Usage | None = None) -> Told:
    """The answer's ``manyicl`` object; with the engine's ``usage``, how much was compiled before too, if told."""
    content: Told = {"context": prompt.context, "shots": prompt.shots, "context_tokens": prompt.context_tokens}
    if warnings := list(shots_warnings(prompt.asked_shots, prompt.shots)):
        content["warnings"] = warnings
    cached = None if usage is None else cached_tokens(usage)
    if cached is not None:
        content["cached_tokens"] = cached
    return content
