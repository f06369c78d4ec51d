"""Measure how fast this worker trains, so that a plan can say what a job will take; work goes first."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog

from manyicl_core.base_models.catalog import base_model_folder, find_base_model
from manyicl_core.child_process import job_environment, spawn, stop
from manyicl_core.contract.progress import Measured, parse
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.settings import Settings, get_settings
from manyicl_core.store.fair_queue import waiting_work
from manyicl_core.store.measurements.service import (
    Wanted,
    claim_measurement,
    give_back_measurement,
    record_measurement,
    record_no_measurement,
)
from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Evaluation, Job
from worker import shutdown
from worker.process_log import logged_stderr

_MEASURE = "manyicl_core.training.measure"
_MOST_SECONDS = 300.0
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class _PutOff(Exception):
    """A job or an evaluation needs this worker, or it is being stopped."""


class _NotMeasured(Exception):
    """Why it came to nothing."""


def measure_next() -> None:
    """Make the measurement that has waited longest, if one waits; give it back as soon as a job waits."""
    if shutdown.is_asked():
        return
    with transaction() as session:
        wanted = claim_measurement(session, _MOST_SECONDS + _GRACE_SECONDS)
    if wanted is None:
        return
    try:
        measured = _measure(wanted, get_settings())
    except _PutOff:
        _log.info("measurement_put_off", base_model=wanted.base_model)
        with transaction() as session:
            give_back_measurement(session, wanted)
    except _NotMeasured as error:
        _log.warning("not_measured", base_model=wanted.base_model, reason=str(error))
        with transaction() as session:
            record_no_measurement(session, wanted, str(error))
    else:
        with transaction() as session:
            record_measurement(session, wanted, measured)
        _log.info(
            "measured",
            base_model=wanted.base_model,
            device=measured.device,
            processor_share=measured.processor_share,
        )


def _measure(wanted: Wanted, settings: Settings) -> Measured:
    base = find_base_model(wanted.base_model)
    if base is None:
        raise _NotMeasured(f"the worker does not know the base model {wanted.base_model!r}")
    with tempfile.TemporaryDirectory(dir=settings.work_folder, prefix="manyicl-measure-") as folder:
        spec = TrainSpec(
            base_model=base.id,
            base_model_folder=str(base_model_folder(base)),
            tasks=[],
            token_budget=1,
            batch_size=1,
            learning_rate=0,
            seed=0,
            lora=wanted.lora,
            checkpoint_every=1,
            threads=settings.threads,
        )
        (Path(folder) / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", _MEASURE, folder]
        with logged_stderr() as stderr:
            process = spawn(command, job_environment(dict(os.environ)), subprocess.PIPE, stderr, nice=settings.job_nice)
        try:
            output = _output_unless_put_off(process)
        finally:
            stop(process, _GRACE_SECONDS)
    messages = [parse(line) for line in output.splitlines()]
    match messages:
        case [Measured() as measured]:
            return measured
        case _:
            raise _NotMeasured(str(messages or f"exit status {process.returncode}"))


def _output_unless_put_off(process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < deadline:
        try:
            return process.communicate(timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            with transaction() as session:
                if shutdown.is_asked() or waiting_work(session, [Job, Evaluation], 1):
                    raise _PutOff from None
    raise _NotMeasured(f"the worker was so busy that {_MOST_SECONDS:.0f} seconds were not enough")
