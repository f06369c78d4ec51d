"""Where the ``openai`` client knows a fixed set of values, what we send is one of them."""

from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from openai import types
from openai.types import fine_tuning, webhooks
from openai.types.fine_tuning import checkpoints
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.webhooks.unwrap_webhook_event import UnwrapWebhookEvent
from pydantic import BaseModel

from manyicl_core.store.batches.schemas import BatchObject
from manyicl_core.store.job_states import STATES
from manyicl_core.store.jobs.schemas import STATUS_OF, CheckpointObject, EventObject, JobObject
from manyicl_core.store.models.schemas import ModelObject, PermissionObject
from manyicl_core.store.uploads.schemas import UploadObject
from manyicl_core.store.webhooks.schemas import EVENT_TYPES, WebhookEndpointObject

PAIRS: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (JobObject, fine_tuning.FineTuningJob),
    (EventObject, fine_tuning.FineTuningJobEvent),
    (CheckpointObject, FineTuningJobCheckpoint),
    (PermissionObject, checkpoints.PermissionListResponse),
    (ModelObject, types.Model),
    (BatchObject, types.Batch),
    (UploadObject, types.Upload),
    (WebhookEndpointObject, webhooks.WebhookEndpoint),
]


def values(annotation: Any) -> set[Any] | None:
    """What a field may be, where that is a fixed set; None: anything of its type."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    parts = [values(part) for part in get_args(annotation) if part is not NoneType]
    return set().union(*parts) if parts and all(part is not None for part in parts) else None  # type: ignore[arg-type]


def enumerated(model: type[BaseModel]) -> Iterator[tuple[str, set[Any]]]:
    for name, field in model.model_fields.items():
        if (known := values(field.annotation)) is not None:
            yield name, known


CASES = [(ours, name, known) for ours, theirs in PAIRS for name, known in enumerated(theirs)]


@pytest.mark.parametrize(("ours", "name", "known"), CASES, ids=[f"{ours.__name__}.{name}" for ours, name, _ in CASES])
def test_an_enumerated_field_holds_what_the_client_knows(ours: type[BaseModel], name: str, known: set[str]) -> None:
    sent = values(ours.model_fields[name].annotation)
    assert sent is not None, "an open text"
    assert sent <= known


def test_the_client_knows_the_types_of_events_that_are_sent() -> None:
    union = get_args(UnwrapWebhookEvent)[0]
    known = set().union(*(values(event.model_fields["type"].annotation) or set() for event in get_args(union)))
    assert known.issuperset(EVENT_TYPES)


def test_every_state_has_a_status() -> None:
    assert set(STATUS_OF) == set(STATES)
    assert {state: status for state, status in STATUS_OF.items() if state != status} == {"paused": "queued"}
