"""The files that a job leaves to download: its metrics, and its weights."""

import re
import tempfile
import zipfile
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.contract.weights import CONTRACT_FILE
from manyicl_core.objects import ArtifactStore, weights_key
from manyicl_core.store.files.service import create_result_file
from manyicl_core.store.jobs.metrics import metrics_csv
from manyicl_core.store.jobs.use import use_files
from manyicl_core.store.tables import Checkpoint, Job, JobMetrics


def metrics_file(session: Session, store: ArtifactStore, job: Job) -> str:
    """All steps as CSV; gives the file's id."""
    rows = session.scalars(select(JobMetrics.values).where(JobMetrics.job_id == job.id).order_by(JobMetrics.step))
    text = metrics_csv(job, rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        path.write_text(text, encoding="utf-8")
        return create_result_file(session, store, job.project_id, path, f"{job.id}-metrics.csv").id


def weights_file(session: Session, store: ArtifactStore, job: Job, final: Checkpoint) -> str:
    """A trained part's weights as a zip: PEFT's adapter format, or a whole model's folder; and how to use them."""
    kind = "adapter" if job.options["adaptation"] == "lora" else "model"
    task = "" if final.task is None else "-" + re.sub(r"[^A-Za-z0-9._-]+", "-", final.task)
    key = weights_key(final.weights_sha256)
    written = use_files(store, job.base_model, job.dataset, final.task, job.options["max_sequence_tokens"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, told in written:
                archive.writestr(name, told)
            for name in store.names(key):
                if name == CONTRACT_FILE:  # what the trainer said is told with all the rest
                    continue
                with archive.open(name, "w", force_zip64=True) as entry:
                    for content in store.stream(f"{key}/{name}"):
                        entry.write(content)
        return create_result_file(session, store, job.project_id, path, f"{job.id}{task}-{kind}.zip").id
