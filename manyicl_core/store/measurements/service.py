"""Measurements of workers: asked for by plans, made by idle workers, looked up for an estimate.

Adapters that differ in rank, but by less than a factor of two, in alpha or in how much they drop cost
about the same and share a measurement.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, case, delete, func, inspect, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.contract.progress import Measured
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.store.tables import Measurement, WantedMeasurement

# Drivers, libraries and neighbours change.
_VALID = timedelta(days=7)
_VALID_WHERE_BUSY = timedelta(minutes=10)
# Of the processor that was wanted: with less, others computed beside it and the seconds are theirs too.
_QUIET_SHARE = 0.8
# Nobody waits any longer for what has not been asked for again.
_WANTED_FOR = timedelta(hours=1)
_MOST_WANTED = 3
_MOST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A measurement for a plan.

    Attributes:
        lora: the adapter it was made with.
        made: when.
        same: of this very kind, on a worker that was otherwise idle; a better one is not to be had.
    """

    measured: Measured
    lora: LoraSpec | None
    made: datetime
    same: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A measurement that a worker is to make; ``lora`` as it is measured."""

    base_model: str
    lora: LoraSpec | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking: a worker is at it, it waits, too much waits already, or it failed too often."""

    running: bool
    refused: bool
    problem: str | None


def measured_kind(lora: LoraSpec | None) -> LoraSpec | None:
    """The adapter that is measured for a kind of them: the next power of two as rank, alpha twice that."""
    if lora is None:
        return None
    rank = 2 ** math.ceil(math.log2(lora.rank))
    return lora.model_copy(update={"rank": rank, "alpha": 2 * rank, "dropout": 0.1 if lora.dropout else 0.0})


def record_measurement(session: Session, wanted: Wanted, measured: Measured) -> None:
    """Keep a measurement in the place of an earlier one of the same machine; it is wanted no more."""
    values = measured.model_dump(mode="json")
    session.execute(
        insert(Measurement)
        .values(
            base_model=wanted.base_model,
            adaptation=_adaptation(wanted.lora),
            device=measured.device,
            dtype=measured.dtype,
            threads=measured.threads,
            values=values,
        )
        .on_conflict_do_update(
            index_elements=inspect(Measurement).primary_key, set_={"values": values, "created_at": func.now()}
        )
    )
    session.execute(delete(WantedMeasurement).where(*_is(wanted)))


def find_measurement(session: Session, base_model: str, lora: LoraSpec | None) -> Found | None:
    """The newest measurement of this kind of adapter, else that of the nearest rank; none older than a week."""
    kind = measured_kind(lora)
    fresh = Measurement.created_at > func.now() - _VALID_WHERE_BUSY
    rows = session.execute(
        select(Measurement, fresh)
        .where(Measurement.base_model == base_model, Measurement.created_at > func.now() - _VALID)
        .order_by(Measurement.created_at.desc())
    )
    nearest = min(
        (
            (distance, row, is_fresh)
            for row, is_fresh in rows
            if (distance := _distance(kind, _lora(row.adaptation))) is not None
        ),
        key=lambda found: found[0],  # of several as near, the newest
        default=None,
    )
    if nearest is None:
        return None
    distance, row, is_fresh = nearest
    measured = Measured.model_validate(row.values)
    quiet = measured.processor_share is None or measured.processor_share >= _QUIET_SHARE
    return Found(measured, _lora(row.adaptation), row.created_at, same=distance == 0 and (quiet or is_fresh))


def want_measurement(session: Session, project_id: str, base_model: str, lora: LoraSpec | None) -> Asked:
    """Ask for a measurement, or again for one that waits; a project's wishes are few at a time."""
    wanted = Wanted(base_model, measured_kind(lora))
    session.execute(delete(WantedMeasurement).where(WantedMeasurement.asked_at < func.now() - _WANTED_FOR))
    known = session.execute(
        update(WantedMeasurement)
        .where(*_is(wanted))
        # What has failed too often is forgotten in its time, and may then be tried again.
        .values(asked_at=_asked_again())
        .returning(
            func.coalesce(WantedMeasurement.claimed_until > func.now(), literal(False)),
            WantedMeasurement.failures,
            WantedMeasurement.problem,
        )
    ).first()
    if known is not None:
        running, failures, problem = known
        return Asked(running, refused=False, problem=problem if failures >= _MOST_FAILURES else None)
    waiting = select(func.count()).select_from(WantedMeasurement).where(WantedMeasurement.project_id == project_id)
    if session.execute(waiting).scalar_one() >= _MOST_WANTED:
        return Asked(running=False, refused=True, problem=None)
    session.execute(
        insert(WantedMeasurement)
        .values(
            base_model=base_model,
            adaptation=_adaptation(wanted.lora),
            project_id=project_id,
            lora=wanted.lora.model_dump(mode="json") if wanted.lora else None,
            failures=0,
        )
        .on_conflict_do_nothing()
    )
    return Asked(running=False, refused=False, problem=None)


def is_measurement_wanted(session: Session) -> bool:
    """Whether one waits for a worker."""
    return session.scalar(select(WantedMeasurement.base_model).where(_is_claimable()).limit(1)) is not None


def claim_measurement(session: Session, seconds: float) -> Wanted | None:
    """Take the one that has waited longest; after so many seconds it is free again, whatever became of us."""
    query = select(WantedMeasurement).where(_is_claimable()).order_by(WantedMeasurement.asked_at).limit(1)
    row = session.scalar(query.with_for_update(skip_locked=True))
    if row is None:
        return None
    row.claimed_until = session.scalar(select(func.now() + timedelta(seconds=seconds)))
    return Wanted(row.base_model, None if row.lora is None else LoraSpec.model_validate(row.lora))


def give_back_measurement(session: Session, wanted: Wanted) -> None:
    """Work came in between: it waits again, behind that."""
    session.execute(update(WantedMeasurement).where(*_is(wanted)).values(claimed_until=None))


def record_no_measurement(session: Session, wanted: Wanted, problem: str) -> None:
    """It came to nothing; it is tried again a few times."""
    failures = WantedMeasurement.failures + 1
    values = {"claimed_until": None, "failures": failures, "problem": problem}
    session.execute(update(WantedMeasurement).where(*_is(wanted)).values(values))


def _is_claimable() -> ColumnElement[bool]:
    free = or_(WantedMeasurement.claimed_until.is_(None), WantedMeasurement.claimed_until < func.now())
    recent = WantedMeasurement.asked_at > func.now() - _WANTED_FOR
    return free & recent & (WantedMeasurement.failures < _MOST_FAILURES)


def _is(wanted: Wanted) -> tuple[ColumnElement[bool], ...]:
    return (
        WantedMeasurement.base_model == wanted.base_model,
        WantedMeasurement.adaptation == _adaptation(wanted.lora),
    )


def _asked_again() -> ColumnElement[datetime]:
    asked_at: ColumnElement[datetime] = case(
        (WantedMeasurement.failures < _MOST_FAILURES, func.now()), else_=WantedMeasurement.asked_at
    )
    return asked_at


def _distance(wanted: LoraSpec | None, known: LoraSpec | None) -> float | None:
    """How far a measured adapter is from a kind of them, in doublings of the rank; None: it tells nothing of it."""
    if wanted is None or known is None:
        return 0.0 if wanted is known else None
    alike = known.model_copy(update={"rank": wanted.rank, "alpha": wanted.alpha})
    return abs(math.log2(known.rank / wanted.rank)) if alike == wanted else None


def _adaptation(lora: LoraSpec | None) -> str:
    return "full" if lora is None else lora.model_dump_json()


def _lora(adaptation: str) -> LoraSpec | None:
    return None if adaptation == "full" else LoraSpec.model_validate_json(adaptation)
