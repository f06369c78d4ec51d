"""What a user may say of a task."""

import pytest
from pydantic import ValidationError

from manyicl_core.method.tasks import ListedLabels, TaskDefinition


def test_a_name_is_enough():
    definition = TaskDefinition.model_validate({"name": "sort"})
    assert (definition.instruction, definition.labels, definition.metric, definition.weight, definition.role) == (
        "", None, "exact_match", 1.0, "train",
    )  # fmt: skip


@pytest.mark.parametrize("label", ["deep red", "two\nlines", "a\tb", "cafe\u0301", "\u200bzero", "Ａ", "\\n"])
def test_a_label_stays_as_it_was_given(label: str):
    assert TaskDefinition(name="sort", labels=["red", label]).labels == ["red", label]


def test_outputs_are_found_in_any_form_and_told_as_listed():
    listed = ListedLabels(["caf\u00e9", "two\nlines"])
    assert [listed.find(text) for text in ("cafe\u0301", " caf\u00e9\n", "two\nlines", "cafe")] == [
        "caf\u00e9", "caf\u00e9", "two\nlines", None,
    ]  # fmt: skip
    assert listed.told() == "'café' ('caf\\xe9'), 'two\\nlines'"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "at least 1"),
        ("name", "x" * 65, "at most 64"),
        ("name", "a\x00b", "a NUL character"),
        ("family", "a\x00b", "a NUL character"),
        ("instruction", "a\x00b", "a NUL character"),
        ("instruction", "x" * 1_000_001, "at most 1000000"),
        ("labels", ["one"], "at least 2"),
        ("labels", ["one", " "], "a label is empty"),
        ("labels", ["one", "one"], "a label occurs twice"),
        ("labels", ["one", " two"], "the label ' two' has white space before or behind"),
        ("labels", ["one", "two\n"], r"the label 'two\n' has white space"),
        ("labels", ["one", "two\xa0"], r"the label 'two\xa0' has white space"),
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


def test_two_forms_of_one_text_are_two_labels_each_found_in_its_own() -> None:
    forms = ["\u2126", "\u03a9", "caf\u00e9"]
    assert TaskDefinition(name="t", labels=forms).labels == forms
    listed = ListedLabels(forms)
    assert [listed.find(form) for form in (*forms, "cafe\u0301")] == [*forms, "caf\u00e9"]
    assert [listed.read(form) for form in forms] == forms
