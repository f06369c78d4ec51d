"""Evaluations: create, list, retrieve, cancel, events, predictions."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.creation import OnceDep
from api.dependencies import ArtifactsDep, EvaluationFeedDep, ReaderDep, WriterDep
from api.routes.event_stream import STREAMED_RESPONSES, event_stream
from api.routes.lists import ListObject, list_object
from manyicl_core.store.evaluations import service
from manyicl_core.store.evaluations.options import CreateEvaluation
from manyicl_core.store.evaluations.predictions import prediction_lines
from manyicl_core.store.evaluations.reports import Report, read_report, read_reports
from manyicl_core.store.evaluations.schemas import (
    EvaluationEventObject,
    EvaluationObject,
    evaluation_event_object,
    evaluation_object,
)
from manyicl_core.store.hints import RUN_EVALUATION, publish_hint
from manyicl_core.store.session import transaction
from manyicl_core.store.waiting import waiting_for

router = APIRouter(prefix="/evaluations", tags=["evaluations"])

_Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
def create_evaluation(
    caller: WriterDep, artifacts: ArtifactsDep, once: OnceDep, body: CreateEvaluation
) -> EvaluationObject:
    """Check models, files and options, and queue an evaluation."""

    def create(session: Session) -> EvaluationObject:
        evaluation = service.create_evaluation(session, artifacts, caller.project_id, body)
        return evaluation_object(evaluation, Report(), waiting_for(session, [evaluation]).get(evaluation.id))

    evaluation = once.create(body, create)
    # After the commit: a worker that gets the hint must find the row.
    publish_hint(RUN_EVALUATION, evaluation.id)
    return evaluation


@router.get("")
def list_evaluations(caller: ReaderDep, after: str | None = None, limit: _Limit = 20) -> ListObject[EvaluationObject]:
    """The project's evaluations, newest first; those that end jobs are among them."""
    with transaction() as session:
        page = service.list_evaluations(session, caller.project_id, after, limit)
        reports = read_reports(session, list(page.rows))
        waiting = waiting_for(session, page.rows)
    evaluations = [evaluation_object(row, reports[row.id], waiting.get(row.id)) for row in page.rows]
    return list_object(evaluations, page.has_more)


@router.get("/{evaluation_id}")
def retrieve_evaluation(caller: ReaderDep, evaluation_id: str) -> EvaluationObject:
    """One evaluation, with what it has measured so far."""
    with transaction() as session:
        evaluation = service.get_evaluation(session, caller.project_id, evaluation_id)
        waiting = waiting_for(session, [evaluation]).get(evaluation.id)
        return evaluation_object(evaluation, read_report(session, evaluation), waiting)


@router.post("/{evaluation_id}/cancel")
def cancel_evaluation(caller: WriterDep, artifacts: ArtifactsDep, evaluation_id: str) -> EvaluationObject:
    """Cancel a waiting evaluation, or stop a running one within seconds."""
    with transaction() as session:
        evaluation = service.cancel_evaluation(session, caller.project_id, evaluation_id)
        report = read_report(session, evaluation)
    service.delete_what_only_it_needed(artifacts, evaluation)
    return evaluation_object(evaluation, report, None)


@router.get(
    "/{evaluation_id}/events",
    response_model=ListObject[EvaluationEventObject],
    responses=STREAMED_RESPONSES,
)
def list_evaluation_events(
    caller: ReaderDep,
    feed: EvaluationFeedDep,
    evaluation_id: str,
    after: str | None = None,
    limit: _Limit = 20,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListObject[EvaluationEventObject] | Response:
    """What happened, newest first; with ``stream`` server-sent events, oldest first, until the end."""
    with transaction() as session:
        if not stream:
            page = service.list_evaluation_events(session, caller.project_id, evaluation_id, after, limit)
            return list_object([evaluation_event_object(event) for event in page.rows], page.has_more)
        evaluation = service.get_evaluation(session, caller.project_id, evaluation_id)
        # A browser that comes back says both, of which ``after`` is where it once began.
        known = last_event_id or after
        number = service.evaluation_event_number(session, evaluation.id, known) if known else 0
    return event_stream(feed, evaluation.id, number)


@router.get(
    "/{evaluation_id}/predictions",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}},
)
def download_predictions(caller: ReaderDep, artifacts: ArtifactsDep, evaluation_id: str) -> StreamingResponse:
    """Every prediction so far as JSONL: model, task, k, line, draw, prediction, reference, score."""
    with transaction() as session:
        evaluation = service.get_evaluation(session, caller.project_id, evaluation_id)
        results = read_report(session, evaluation).results
    headers = {"content-disposition": f'attachment; filename="{evaluation_id}-predictions.jsonl"'}
    return StreamingResponse(prediction_lines(artifacts, results), media_type="application/jsonl", headers=headers)
