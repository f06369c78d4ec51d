"""Cancel, pause and resume jobs: what changes the course of one."""

from sqlalchemy.orm import Session

from manyicl_core.errors import Conflict
from manyicl_core.store.creations import forget_made
from manyicl_core.store.evaluations.recorder import cancel_with_job
from manyicl_core.store.events import add_event
from manyicl_core.store.job_states import CANCELLED, FINAL, PAUSED
from manyicl_core.store.jobs.checkpoints import LeftBehind, forget_checkpoints
from manyicl_core.store.jobs.service import get_job
from manyicl_core.store.leases import pause, request_cancel, resume
from manyicl_core.store.tables import Job
from manyicl_core.store.waiting import tell_wait
from manyicl_core.store.webhooks.outbox import announce


def cancel_job(session: Session, project_id: str, job_id: str) -> tuple[Job, LeftBehind]:
    """Cancel a waiting or paused job at once, or ask a running one's worker to stop it.

    Gives the job, and what it leaves behind, to be deleted after the commit.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job is over.
    """
    job = get_job(session, project_id, job_id)
    left = LeftBehind()
    done = request_cancel(session, job)
    forget_made(session, job.id)
    if done == "cancelled":
        # A paused job may have been trained and measured in part.
        cancel_with_job(session, job.id)
        left = forget_checkpoints(session, job.id)
        add_event(session, job.id, "info", "The job was cancelled while it waited")
        announce(session, project_id, "fine_tuning.job.cancelled", job.id)
    elif done == "asked":
        add_event(session, job.id, "info", "Cancelling the job")
    session.refresh(job)
    if job.state in FINAL and job.state != CANCELLED:
        raise _over(job, "cancelled")
    return job, left


def pause_job(session: Session, project_id: str, job_id: str) -> Job:
    """Take a waiting job out of the queue, or a running one from its worker, which stops within seconds.

    Pausing a paused job changes nothing.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job is over, or is being cancelled.
    """
    job = get_job(session, project_id, job_id)
    if pause(session, job):
        session.refresh(job)
        job.estimated_finish = None
        add_event(session, job.id, "info", "The job is paused; resumed, it goes on from its last checkpoint")
    session.refresh(job)
    if job.state in FINAL:
        raise _over(job, "paused")
    if job.state != PAUSED:
        raise Conflict("The job is being cancelled and cannot be paused any more")
    return job


def resume_job(session: Session, project_id: str, job_id: str) -> Job:
    """Put a paused job back into the queue; one that waits or runs already is left alone.

    Raises:
        NotFound: the project has no such job.
        Conflict: the job is over.
    """
    job = get_job(session, project_id, job_id)
    if resume(session, job):
        add_event(session, job.id, "info", "The job is resumed and waits for a worker")
        session.refresh(job)
        tell_wait(session, job)
    session.refresh(job)
    if job.state in FINAL:
        raise _over(job, "resumed")
    return job


def _over(job: Job, done: str) -> Conflict:
    return Conflict(f"The job is over ({job.state}) and cannot be {done} any more")
