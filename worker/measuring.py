"""Measure how fast this worker trains, so that a plan can say what a job will take."""

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
from manyicl_core.contract.train_spec import LoraSpec, TrainSpec
from manyicl_core.settings import Settings, get_settings
from manyicl_core.store.measurements.service import latest_measurement, record_measurement
from manyicl_core.store.session import transaction
from worker import shutdown

_MEASURE = "manyicl_core.training.measure"
_MOST_SECONDS = 600.0
_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 0.2

_log = structlog.get_logger(__name__)


def measure_training(base_model: str, lora: LoraSpec | None) -> None:
    """Measure and record, unless it has been done meanwhile."""
    with transaction() as session:
        if latest_measurement(session, base_model, lora) is not None:
            return
    if (measured := _measure(base_model, lora, get_settings())) is None:
        return
    with transaction() as session:
        record_measurement(session, base_model, lora, measured)
    _log.info("measured", base_model=base_model, device=measured.device)


def _measure(base_model: str, lora: LoraSpec | None, settings: Settings) -> Measured | None:
    base = find_base_model(base_model)
    if base is None:
        _log.warning("not_measured", reason=f"this worker does not know the base model {base_model!r}")
        return None
    with tempfile.TemporaryDirectory(dir=settings.work_folder, prefix="manyicl-measure-") as folder:
        spec = TrainSpec(
            base_model=base.id,
            base_model_folder=str(base_model_folder(base)),
            tasks=[],
            token_budget=1,
            batch_size=1,
            learning_rate=0,
            seed=0,
            lora=lora,
            checkpoint_every=1,
            threads=settings.threads,
        )
        (Path(folder) / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", _MEASURE, folder]
        process = spawn(command, job_environment(dict(os.environ)), subprocess.PIPE, nice=settings.job_nice)
        try:
            output = _output(process)
        finally:
            stop(process, _GRACE_SECONDS)
    messages = [parse(line) for line in output.splitlines()]
    match messages:
        case [Measured() as measured]:
            return measured
        case _:
            _log.warning("not_measured", reason=str(messages or f"exit status {process.returncode}"))
            return None


def _output(process: subprocess.Popen[str]) -> str:
    """All that it says, or nothing when it takes too long or the worker is being stopped."""
    until = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < until and not shutdown.is_asked():
        try:
            return process.communicate(timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            continue
    return ""
