"""Measurements of workers: kept by the worker, looked up for a plan."""

from datetime import datetime, timedelta

from sqlalchemy import func, inspect, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import Measured
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.store.tables import Measurement

# Drivers, libraries and neighbours change.
_VALID = timedelta(days=7)


def record_measurement(session: Session, base_model: str, lora: LoraSpec | None, measured: Measured) -> None:
    """Keep a measurement in the place of an earlier one of the same machine."""
    values = measured.model_dump(mode="json")
    session.execute(
        insert(Measurement)
        .values(
            base_model=base_model,
            adaptation=_adaptation(lora),
            device=measured.device,
            dtype=measured.dtype,
            threads=measured.threads,
            values=values,
        )
        .on_conflict_do_update(
            index_elements=inspect(Measurement).primary_key, set_={"values": values, "created_at": func.now()}
        )
    )


def latest_measurement(session: Session, base_model: str, lora: LoraSpec | None) -> tuple[Measured, datetime] | None:
    """The newest measurement of the last week, and when it was made."""
    row = session.scalar(
        select(Measurement)
        .where(
            Measurement.base_model == base_model,
            Measurement.adaptation == _adaptation(lora),
            Measurement.created_at > func.now() - _VALID,
        )
        .order_by(Measurement.created_at.desc())
        .limit(1)
    )
    return None if row is None else (Measured.model_validate(row.values), row.created_at)


def _adaptation(lora: LoraSpec | None) -> str:
    return "full" if lora is None else lora.model_dump_json()
