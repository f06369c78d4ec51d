"""Evaluations: what is measured, where it stands, and what came out."""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from manyicl_core.store.tables.base import Base, CreatedAt
from manyicl_core.store.tables.leased import Leased, state_checks

_Objects = list[dict[str, Any]]


class Evaluation(Leased):
    """Models beside each other over tasks and numbers of shots.

    One with a ``job_id`` ends that job: it runs under the job's lease and has none of its own.

    Attributes:
        models: what is compared, the first one with every other (``EvaluatedWeights`` objects).
        dataset: where its tasks lie, by their hash.
        tasks: the names of those tasks that are measured.
        options: shots, queries, draws, curve_shots, forgetting.
        means: averages over the trained and the held-out tasks, once all is measured.
        comparisons: the paired comparisons, once all is measured.
        recommendations: which k to serve each model with, once all is measured.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        *state_checks(),
        Index(None, "project_id", "created_at"),
        Index(None, "state", "lease_expires_at"),
    )

    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    base_model: Mapped[str]
    models: Mapped[_Objects] = mapped_column(JSONB)
    dataset: Mapped[str]
    tasks: Mapped[list[str]] = mapped_column(JSONB)
    options: Mapped[dict[str, Any]]
    seed: Mapped[int]
    means: Mapped[_Objects] = mapped_column(JSONB, default=list)
    comparisons: Mapped[_Objects] = mapped_column(JSONB, default=list)
    recommendations: Mapped[_Objects] = mapped_column(JSONB, default=list)
    result_files: Mapped[list[str]] = mapped_column(JSONB, default=list)


class EvaluationResult(Base):
    """One metric of one model and task at one k, from 0 to 1.

    Attributes:
        items_key: where its predictions lie.
        evidence: an ``Evidence`` object; None in rows from before there was one.
    """

    __tablename__ = "evaluation_results"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    k: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    family: Mapped[str]
    role: Mapped[str]
    shots: Mapped[int]
    metric: Mapped[str]
    value: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    queries: Mapped[int]
    draws: Mapped[int]
    seconds: Mapped[float]
    seconds_per_query: Mapped[float]
    items_key: Mapped[str]
    evidence: Mapped[dict[str, Any] | None]


class EvaluationCurve(Base):
    """How often a model answers a task exactly right, at 0, 1, 2, … shots."""

    __tablename__ = "evaluation_curves"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    exact_match: Mapped[list[float]] = mapped_column(JSONB)
    answers: Mapped[list[int]] = mapped_column(JSONB)


class PlainText(Base):
    """A model's cross-entropy on the fixed plain text, in nats a token."""

    __tablename__ = "evaluation_plain_text"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[CreatedAt]
    cross_entropy: Mapped[float]
    tokens: Mapped[int]
