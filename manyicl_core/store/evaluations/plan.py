"""What an evaluation has to measure, from its row alone."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from manyicl_core.contract.evaluation_spec import CurvePoint, Point
from manyicl_core.store.tables import Evaluation


class EvaluatedWeights(BaseModel):
    """A model of an evaluation, as its row keeps it.

    Attributes:
        name: what the client names.
        weights_sha256: its weights in the artifact store; None: the base model.
        tasks: a dedicated adapter answers its own task only; None: every task.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weights_sha256: str | None
    tasks: list[str] | None = None

    def answers(self, task: str) -> bool:
        """Whether the model is measured at the task."""
        return self.tasks is None or task in self.tasks


def evaluated_weights(evaluation: Evaluation) -> list[EvaluatedWeights]:
    """The models of an evaluation, in its order."""
    return [EvaluatedWeights.model_validate(model) for model in evaluation.models]


def planned_points(evaluation: Evaluation) -> list[Point]:
    """Every model at every task and k."""
    return [
        Point(model=weights.name, task=task, k=k)
        for weights in evaluated_weights(evaluation)
        for task in evaluation.tasks
        for k in sorted(set(evaluation.options["shots"]))
        if weights.answers(task)
    ]


def planned_curves(evaluation: Evaluation) -> list[CurvePoint]:
    """Every model at every task, where curves are asked for."""
    if not evaluation.options["curve_shots"]:
        return []
    return [
        CurvePoint(model=weights.name, task=task)
        for weights in evaluated_weights(evaluation)
        for task in evaluation.tasks
        if weights.answers(task)
    ]


def planned_plain_text(evaluation: Evaluation) -> list[str]:
    """Every model, where forgetting is asked for."""
    return [weights.name for weights in evaluated_weights(evaluation)] if evaluation.options["forgetting"] else []


def planned_measurements(evaluation: Evaluation) -> int:
    """How many results an evaluation will have in all."""
    return len(planned_points(evaluation)) + len(planned_curves(evaluation)) + len(planned_plain_text(evaluation))


def weights_hashes(evaluation: Evaluation) -> set[str]:
    """The weights that an evaluation needs, base model's aside."""
    return {weights.weights_sha256 for weights in evaluated_weights(evaluation) if weights.weights_sha256 is not None}


def repetitions(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Bodies of ``POST /v1/evaluations`` that measure a job's models again: one for all, or one a dedicated model."""
    base, *made = evaluated_weights(evaluation)
    return [
        {
            "models": [base.name, weights.name],
            "tasks": [task for task in evaluation.tasks if weights.answers(task)],
            **evaluation.options,
            "seed": evaluation.seed,
        }
        for weights in made
    ]
