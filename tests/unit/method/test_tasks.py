"""What a user may say of a task."""

import pytest
from pydantic import ValidationError

from manyicl_core.method.tasks import TaskDefinition


def test_a_name_is_enough():
    definition = TaskDefinition.model_validate({"name": "sort"})
    assert (definition.instruction, definition.labels, definition.metric, definition.weight, definition.role) == (
        "", None, "exact_match", 1.0, "train",
    )  # fmt: skip


def test_labels_are_stripped():
    assert TaskDefinition(name="sort", labels=[" red", "green\n"]).labels == ["red", "green"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "at least 1"),
        ("name", "x" * 65, "at most 64"),
        ("name", "a\x00b", "a NUL character"),
        ("family", "a\x00b", "a NUL character"),
        ("instruction", "a\x00b", "a NUL character"),
        ("instruction", "x" * 4001, "at most 4000"),
        ("labels", ["one"], "at least 2"),
        ("labels", ["one", " "], "a label is empty"),
        ("labels", ["one", "one "], "a label occurs twice"),
        ("labels", ["one", 2], "valid string"),
        ("metric", "bleu", "'accuracy'"),
        ("role", "test", "'train'"),
        ("weight", 0.0, "greater than 0"),
        ("weight", 1001.0, "less than or equal to 1000"),
        ("weight", float("nan"), "finite number"),
        ("weight", True, "valid number"),
        ("shots", 4, "not permitted"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name(field: str, value: object, said: str):
    with pytest.raises(ValidationError) as refused:
        TaskDefinition.model_validate({"name": "sort", field: value})
    [problem] = refused.value.errors()
    assert problem["loc"][0] == field
    assert said in problem["msg"]
