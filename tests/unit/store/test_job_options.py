"""The body of a job's creation: strict, with defaults, and with one statement of its length."""

from typing import Any

import pytest
from pydantic import ValidationError

from manyicl_core.store.jobs.options import CreateJob, resolved_hyperparameters

BODY: dict[str, Any] = {"model": "base", "training_file": "file-1"}


def supervised(**hyperparameters: object) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def body_with(path: str, value: object) -> dict[str, Any]:
    """The smallest body with ``value`` at a dotted path."""
    *parents, last = path.split(".")
    body = dict(BODY)
    place = body
    for parent in parents:
        place = place.setdefault(parent, {"type": "supervised"} if parent == "method" else {})
    place[last] = value
    return body


def test_a_model_and_a_file_are_enough():
    request = CreateJob.model_validate(BODY)
    assert request.manyicl.model_dump() == {
        "objective": "many_icl",
        "dedicated_objective": "zero_shot",
        "normalization": "token",
        "max_sequence_tokens": 1024,
        "max_demonstrations": None,
        "demonstrations": "natural",
        "mixing": "uniform",
        "mixing_temperature": 2.0,
        "token_budget": None,
        "n_epochs": None,
        "tasks": [],
        "adaptation": "lora",
        "lora": {
            "rank": 16,
            "alpha": 32,
            "dropout": 0.0,
            "target_modules": "all-linear",
            "top_layers": None,
            "quantize_base": False,
        },
        "optimizer": {
            "schedule": "cosine",
            "warmup_fraction": 0.1,
            "weight_decay": 0.0,
            "max_gradient_norm": 1.0,
            "micro_batch_size": 1,
        },
        "validation": None,
        "deterministic": False,
        "evaluation": {"shots": [0, 4, 16], "queries": 100, "draws": 1, "curve_shots": 0},
    }
    assert resolved_hyperparameters(request) == {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1.0}


@pytest.mark.parametrize("field", ["model", "training_file"])
def test_model_and_file_are_required(field: str):
    with pytest.raises(ValidationError) as refused:
        CreateJob.model_validate({key: value for key, value in BODY.items() if key != field})
    assert [problem["loc"] for problem in refused.value.errors()] == [(field,)]


@pytest.mark.parametrize(
    "path",
    [
        "extra",
        "manyicl.extra",
        "manyicl.lora.extra",
        "manyicl.evaluation.extra",
        "manyicl.optimizer.extra",
        "manyicl.validation.extra",
        "hyperparameters.extra",
        "method.extra",
        "method.supervised.extra",
        "method.supervised.hyperparameters.extra",
    ],
)
def test_an_unknown_field_is_refused_by_its_path(path: str):
    with pytest.raises(ValidationError) as refused:
        CreateJob.model_validate(body_with(path, 1))
    [problem] = refused.value.errors()
    assert ".".join(str(part) for part in problem["loc"]) == path
    assert problem["type"] == "extra_forbidden"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", True),
        ("seed", "1"),
        ("seed", 1.0),
        ("seed", -1),
        ("seed", 2**31),
        ("suffix", ""),
        ("suffix", "a b"),
        ("suffix", "a/b"),
        ("suffix", "ok\n"),
        ("suffix", "x" * 65),
        ("metadata", {"key": 1}),
        ("metadata", {"k" * 65: "v"}),
        ("metadata", {"key": "v" * 513}),
        ("metadata", {str(number): "v" for number in range(17)}),
        ("integrations", [{"type": "wandb"}]),
        ("method.type", "dpo"),
        ("hyperparameters.n_epochs", True),
        ("hyperparameters.n_epochs", 0),
        ("hyperparameters.n_epochs", 51),
        ("hyperparameters.n_epochs", "3"),
        ("hyperparameters.batch_size", True),
        ("hyperparameters.batch_size", 257),
        ("hyperparameters.learning_rate_multiplier", True),
        ("hyperparameters.learning_rate_multiplier", 0),
        ("hyperparameters.learning_rate_multiplier", float("inf")),
        ("method.supervised.hyperparameters.batch_size", 1.5),
        ("manyicl.objective", "one_shot"),
        ("manyicl.dedicated_objective", "dedicated"),
        ("manyicl.normalization", "sequence"),
        ("manyicl.max_demonstrations", 0),
        ("manyicl.demonstrations", "sorted"),
        ("manyicl.mixing", "weighted"),
        ("manyicl.mixing_temperature", 0.5),
        ("manyicl.mixing_temperature", float("inf")),
        ("manyicl.mixing_temperature", float("nan")),
        ("manyicl.adaptation", "prompt"),
        ("manyicl.deterministic", 1),
        ("manyicl.lora.dropout", 1.0),
        ("manyicl.lora.dropout", float("nan")),
        ("manyicl.lora.top_layers", 0),
        ("manyicl.lora.quantize_base", "yes"),
        ("manyicl.optimizer.schedule", "step"),
        ("manyicl.optimizer.warmup_fraction", 1.5),
        ("manyicl.optimizer.weight_decay", -0.1),
        ("manyicl.optimizer.max_gradient_norm", 0),
        ("manyicl.optimizer.max_gradient_norm", float("inf")),
        ("manyicl.optimizer.micro_batch_size", 0),
        ("manyicl.validation.every", 0),
        ("manyicl.validation.sequences", 0),
        ("manyicl.validation.patience", 0),
        ("manyicl.max_sequence_tokens", True),
        ("manyicl.max_sequence_tokens", 63),
        ("manyicl.token_budget", True),
        ("manyicl.token_budget", 0),
        ("manyicl.n_epochs", True),
        ("manyicl.lora.rank", True),
        ("manyicl.lora.rank", 257),
        ("manyicl.lora.target_modules", []),
        ("manyicl.lora.target_modules", "q_proj"),
        ("manyicl.evaluation.shots", []),
        ("manyicl.evaluation.shots", [True]),
        ("manyicl.evaluation.shots", [-1]),
        ("manyicl.evaluation.queries", 0),
        ("manyicl.evaluation.draws", 21),
        ("manyicl.tasks", [{"name": ""}]),
        ("manyicl.tasks", {"name": "sort"}),
    ],
)
def test_a_wrong_value_is_refused_at_its_field(path: str, value: object):
    with pytest.raises(ValidationError) as refused:
        CreateJob.model_validate(body_with(path, value))
    top = path.split(".", maxsplit=1)[0]
    for problem in refused.value.errors():
        assert problem["loc"][:1] in ((top,), ()), problem


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("suffix", "my-tasks_v1.2"),
        ("seed", 0),
        ("metadata", {"k" * 64: "v" * 512}),
        ("integrations", []),
        ("hyperparameters.batch_size", 256),
        ("manyicl.objective", "few_shot"),
        ("manyicl.objective", "zero_shot"),
        ("manyicl.objective", "dedicated"),
        ("manyicl.dedicated_objective", "many_icl"),
        ("manyicl.normalization", "answer"),
        ("manyicl.max_demonstrations", 1),
        ("manyicl.demonstrations", "balanced"),
        ("manyicl.mixing", "temperature"),
        ("manyicl.mixing_temperature", 1),
        ("manyicl.adaptation", "full"),
        ("manyicl.lora.dropout", 0.9),
        ("manyicl.lora.top_layers", 2),
        ("manyicl.optimizer.schedule", "constant"),
        ("manyicl.optimizer.warmup_fraction", 1),
        ("manyicl.validation.patience", 3),
        ("manyicl.lora.target_modules", ["q_proj"]),
        ("manyicl.evaluation.shots", [0]),
        ("manyicl.tasks", [{"name": "sort", "labels": ["a", "b"], "weight": 2}]),
    ],
)
def test_a_right_value_is_taken(path: str, value: object):
    request: Any = CreateJob.model_validate(body_with(path, value))
    for part in path.split("."):
        request = getattr(request, part)
    if path == "manyicl.tasks":
        request = [task.model_dump(exclude_unset=True) for task in request]
    assert request == value


LENGTHS = {
    "manyicl.token_budget": {"manyicl": {"token_budget": 1000}},
    "manyicl.n_epochs": {"manyicl": {"n_epochs": 2}},
    "hyperparameters": {"hyperparameters": {"n_epochs": 2}},
    "method": {"method": supervised(n_epochs=2)},
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("manyicl.token_budget", "hyperparameters"),
        ("manyicl.token_budget", "method"),
        ("manyicl.n_epochs", "hyperparameters"),
        ("manyicl.n_epochs", "method"),
    ],
)
def test_the_length_of_training_is_stated_once(first: str, second: str):
    for alone in (first, second):
        CreateJob.model_validate({**BODY, **LENGTHS[alone]})
    with pytest.raises(ValidationError, match="exclude each other"):
        CreateJob.model_validate({**BODY, **LENGTHS[first], **LENGTHS[second]})


def test_epochs_and_token_budget_exclude_each_other():
    with pytest.raises(ValidationError, match="exclude each other"):
        CreateJob.model_validate({**BODY, "manyicl": {"token_budget": 1000, "n_epochs": 2}})


def test_auto_epochs_go_with_a_token_budget():
    request = CreateJob.model_validate(
        {**BODY, "manyicl": {"token_budget": 1000}, "method": supervised(n_epochs="auto")}
    )
    assert resolved_hyperparameters(request)["n_epochs"] is None


@pytest.mark.parametrize("place", ["method", "hyperparameters"])
def test_hyperparameters_are_read_from_either_place(place: str):
    numbers = {"n_epochs": 5, "batch_size": 7, "learning_rate_multiplier": 0.5}
    content = supervised(**numbers) if place == "method" else numbers
    assert resolved_hyperparameters(CreateJob.model_validate({**BODY, place: content})) == numbers


def test_manyicls_own_epochs_reach_further_than_openais():
    request = CreateJob.model_validate({**BODY, "manyicl": {"n_epochs": 1000}})
    assert resolved_hyperparameters(request)["n_epochs"] == 1000
