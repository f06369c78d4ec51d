"""From an evaluation's row to the spec of its process."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from manyicl_core.contract.evaluation_spec import EvaluatedModel, EvaluationSpec
from manyicl_core.method.tasks import Task
from manyicl_core.store.evaluations.plan import (
    evaluated_weights,
    planned_curves,
    planned_plain_text,
    planned_points,
)
from manyicl_core.store.tables import Evaluation, EvaluationCurve, EvaluationResult, PlainText


def evaluation_spec(
    session: Session,
    evaluation: Evaluation,
    tasks: list[Task],
    base_folder: Path,
    weights_folders: dict[str, Path],
    threads: int,
) -> EvaluationSpec:
    """What is left to measure: an earlier attempt's results stand.

    Args:
        weights_folders: where the weights of each model are that is not the base model.
    """
    points = set(
        session.execute(
            select(EvaluationResult.model, EvaluationResult.task, EvaluationResult.k).where(
                EvaluationResult.evaluation_id == evaluation.id
            )
        )
    )
    curves = set(
        session.execute(
            select(EvaluationCurve.model, EvaluationCurve.task).where(EvaluationCurve.evaluation_id == evaluation.id)
        )
    )
    texts = set(session.scalars(select(PlainText.model).where(PlainText.evaluation_id == evaluation.id)))
    return EvaluationSpec(
        base_model_folder=str(base_folder),
        models=[
            EvaluatedModel(
                name=weights.name,
                weights_folder=str(weights_folders[weights.name]) if weights.name in weights_folders else None,
                tasks=weights.tasks,
            )
            for weights in evaluated_weights(evaluation)
        ],
        tasks=[task for task in tasks if task.definition.name in evaluation.tasks],
        points=[point for point in planned_points(evaluation) if (point.model, point.task, point.k) not in points],
        queries=evaluation.options["queries"],
        draws=evaluation.options["draws"],
        seed=evaluation.seed,
        curves=[curve for curve in planned_curves(evaluation) if (curve.model, curve.task) not in curves],
        curve_shots=evaluation.options["curve_shots"],
        plain_text=[model for model in planned_plain_text(evaluation) if model not in texts],
        threads=threads,
    )


def left_to_measure(spec: EvaluationSpec) -> int:
    """How many results the process is to report."""
    return len(spec.points) + len(spec.curves) + len(spec.plain_text)
