"""Many inputs at once over one context, each answered by a label and how probable every label is."""

import math
import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from manyicl_core.answers.labels import probabilities
from manyicl_core.answers.objects import Classification, ClassificationList, Usage
from manyicl_core.answers.prompts import (
    LABEL_SCORES,
    cached_tokens,
    find_target,
    label_scores_body,
    prompts_behind,
    told,
)
from manyicl_core.engines.client import CompletionEngine
from manyicl_core.engines.patient_engine import PatientEngine
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.tasks import MAX_TEXT_CHARACTERS
from manyicl_core.objects import ArtifactStore
from manyicl_core.request_body import RequestBody
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.contexts.service import HostedPrompt

_MAX_INPUT_TOKENS = 262_144
_MAX_PROMPT_TOKENS = 4_194_304
_MAX_PROBABILITIES = 262_144
_INPUTS_A_CALL = 64

_Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS, pattern=r"\S")]
_Inputs = Annotated[list[_Text], Field(min_length=1, max_length=2048)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class CreateClassification(RequestBody):
    """The body of ``POST /v1/classifications``; ``input`` is one text or a list of them."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Annotated[_Inputs, BeforeValidator(_as_list, json_schema_input_type=_Text | _Inputs)]
    manyicl: ManyiclChat | None = None
    user: Any = None


@dataclass(frozen=True, slots=True)
class ClassificationCall:
    """Requests to the engine for a part of the inputs each; all prompts stand behind one context."""

    bodies: list[dict[str, Any]]
    context: HostedPrompt
    labels: tuple[str, ...]


def classification_call(
    project_id: str, artifacts: ArtifactStore, body: CreateClassification, priority: int = 0
) -> ClassificationCall:
    """The call that answers ``body``; arguments and errors are those of ``chat_call``."""
    target = find_target(project_id, artifacts, body.model, body.manyicl)
    if not target.hosted:
        raise InvalidRequest("manyicl: this field is required; name a task or give a context with labels", "manyicl")
    prompts = prompts_behind(artifacts, target, body.input, "input")
    labels = prompts[0].labels
    if labels is None:
        raise InvalidRequest(
            "manyicl: this task has no labels to choose from; give the task or context labels, "
            "or ask /v1/chat/completions for free text",
            "manyicl",
        )
    _check_size(prompts, labels)
    parts = [prompts[start : start + _INPUTS_A_CALL] for start in range(0, len(prompts), _INPUTS_A_CALL)]
    return ClassificationCall([label_scores_body(target, part, priority) for part in parts], prompts[0], labels)


def _check_size(prompts: list[HostedPrompt], labels: tuple[str, ...]) -> None:
    """Refuse what would take too much work or memory, before either is spent."""
    tokens = sum(len(prompt.query) for prompt in prompts)
    with_contexts = tokens + len(prompts) * prompts[0].context_tokens
    sizes = {
        "tokens": (tokens, _MAX_INPUT_TOKENS),
        "tokens, the context counted with each": (with_contexts, _MAX_PROMPT_TOKENS),
        "probabilities, one a label": (len(prompts) * len(labels), _MAX_PROBABILITIES),
    }
    for what, (size, most) in sizes.items():
        if size > most:
            raise InvalidRequest(
                f"input: {len(prompts)} inputs have {size} {what}, and at most {most} are taken at once; "
                f"send about {max(1, len(prompts) * most // size)} inputs in each request",
                "input",
            )


async def answer_classification(
    engine: CompletionEngine, call: ClassificationCall, body: CreateClassification, wait_seconds: float | None = None
) -> ClassificationList:
    """The answer to ``body``, whose call is ``call``; the errors are those of the engine.

    Args:
        engine: answers the parts one after the other.
        call: the parts.
        body: the request.
        wait_seconds: how long to wait for room for a part after the first, as those before it are computed and
            counted; None: for ever.
    """
    first, *rest = call.bodies
    answers = [await engine.complete(LABEL_SCORES, first)]
    patient = PatientEngine(engine, wait_seconds)
    answers += [await patient.complete(LABEL_SCORES, part) for part in rest]
    scores = [of_input for answer in answers for of_input in answer["scores"]]
    usage = _total([answer["usage"] for answer in answers])
    return {
        "id": "clsf-" + secrets.token_hex(12),
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": [_classification(index, call.labels, of_input) for index, of_input in enumerate(scores)],
        "usage": usage,
        "manyicl": told(call.context, usage),
    }


def _classification(index: int, labels: tuple[str, ...], scores: list[float]) -> Classification:
    of_label = dict(zip(labels, probabilities(scores), strict=True))
    label = max(of_label, key=of_label.__getitem__)
    return {
        "object": "classification",
        "index": index,
        "label": label,
        "probability": of_label[label],
        "probabilities": of_label,
        "label_mass": math.fsum(map(math.exp, scores)),
    }


def _total(usages: list[Usage]) -> Usage:
    """One ``usage`` over several requests; what one of them does not tell is not told."""
    cached = [cached_tokens(usage) for usage in usages]
    known = [tokens for tokens in cached if tokens is not None]
    return {
        "prompt_tokens": sum(usage["prompt_tokens"] for usage in usages),
        "completion_tokens": sum(usage["completion_tokens"] for usage in usages),
        "total_tokens": sum(usage["total_tokens"] for usage in usages),
        "prompt_tokens_details": {"cached_tokens": sum(known) if len(known) == len(cached) else None},
    }
