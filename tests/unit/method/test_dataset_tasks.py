"""Rows into tasks: definitions and files must say the same, and no test input may be trained on."""

import unicodedata

import pytest

from manyicl_core.method.dataset import InvalidDataset, Row, chat_task_name
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.task_building import build_tasks, check_fits
from manyicl_core.method.tasks import MAX_TASKS, Example, Task, TaskDefinition, Turn
from tests.unit.sample_tasks import BYTES, task_of


def row(task: str, input_: str, output: str, line: int) -> Row:
    return Row(task, None, Example(input=input_, output=output, line=line))


def chat_row(instruction: str, input_: str, output: str, line: int) -> Row:
    return Row(chat_task_name(instruction), instruction, Example(input=input_, output=output, line=line))


def define(name: str, **fields: object) -> TaskDefinition:
    return TaskDefinition.model_validate({"name": name, **fields})


def problems_of(training: list[Row], validation: list[Row], definitions: list[TaskDefinition]) -> list[str]:
    with pytest.raises(InvalidDataset) as refused:
        build_tasks(training, validation, definitions)
    return refused.value.problems


def read(tasks: list[Task]) -> dict[str, tuple[list[str], list[str]]]:
    return {
        task.definition.name: (
            [example.input for example in task.demonstrations],
            [example.input for example in task.queries],
        )
        for task in tasks
    }


TRAINING = [row("sort", "one", "a", 1), row("count", "two", "2", 2), row("sort", "three", "b", 3)]


def test_without_definitions_every_task_of_the_file_is_trained_with_the_defaults():
    tasks = build_tasks(TRAINING, [row("count", "four", "4", 1)], [])
    assert read(tasks) == {"sort": (["one", "three"], []), "count": (["two"], ["four"])}
    assert [task.definition for task in tasks] == [define("sort"), define("count")]


def test_chat_lines_make_a_task_whose_instruction_is_their_system_message():
    rows = [chat_row("Sort.", "one", "a", 1), chat_row("Sort.", "two", "b", 2), chat_row("", "three", "c", 3)]
    tasks = build_tasks(rows, [], [])
    assert read(tasks) == {chat_task_name("Sort."): (["one", "two"], []), chat_task_name(""): (["three"], [])}
    assert [task.definition.instruction for task in tasks] == ["Sort.", ""]


def test_a_definition_names_a_chat_task_by_its_system_message():
    tasks = build_tasks(
        [chat_row("Sort.", "one", "a", 1)],
        [chat_row("Sort.", "two", "b", 1)],
        [define("sorting", instruction=" Sort.\n", family="mail")],
    )
    assert read(tasks) == {"sorting": (["one"], ["two"])}
    assert tasks[0].definition.family == "mail"


def test_a_definition_names_a_chat_task_by_its_name_and_takes_over_its_system_message():
    name = chat_task_name("Sort.")
    [task] = build_tasks([chat_row("Sort.", "one", "a", 1)], [], [define(name, metric="f1")])
    assert (task.definition.instruction, task.definition.metric) == ("Sort.", "f1")


def test_task_lines_and_chat_lines_of_one_definition_are_one_task():
    rows = [row("sort", "one", "a", 1), chat_row("Sort.", "two", "b", 2)]
    assert read(build_tasks(rows, [], [define("sort", instruction="Sort.")])) == {"sort": (["one", "two"], [])}


def test_a_definition_without_lines_is_refused():
    [problem] = problems_of(TRAINING, [], [define("sort"), define("count"), define("find")])
    assert "'find' is defined but has no line in the training file" in problem


def test_lines_without_a_definition_are_refused_with_their_first_line():
    assert problems_of(TRAINING, [row("find", "x", "y", 7)], [define("sort")]) == [
        "line 2: the training file has task 'count', which is not among the job's tasks",
        "line 7: the validation file has task 'find', which is not among the job's tasks",
    ]


def test_validation_lines_of_an_untrained_task_are_refused_without_definitions_too():
    [problem] = problems_of(TRAINING, [row("find", "x", "y", 7)], [])
    assert problem.startswith("line 7: the validation file has task 'find'")


def test_a_task_defined_twice_is_refused():
    assert "task 'sort' is defined twice" in problems_of(
        TRAINING, [], [define("sort"), define("sort"), define("count")]
    )


def test_an_output_that_is_no_label_is_refused_with_its_line_in_either_file():
    definitions = [define("sort", labels=["a", "b"])]
    training = [row("sort", "one", "a", 1), row("sort", "two", "A", 4)]
    problems = problems_of(training, [row("sort", "three", "c", 2)], definitions)
    assert problems == [
        "line 4: 'A' is not a label of task 'sort'; its labels are 'a', 'b'",
        "line 2 of the validation file: 'c' is not a label of task 'sort'; its labels are 'a', 'b'",
    ]


def test_outputs_in_another_form_of_unicode_are_their_labels_as_listed():
    definitions = [define("sort", labels=["caf\u00e9", "tea"])]
    training = [row("sort", "one", "cafe\u0301", 1), row("sort", "two", "tea", 2)]
    [task] = build_tasks(training, [row("sort", "three", "cafe\u0301", 1)], definitions)
    assert [example.output for example in task.demonstrations + task.queries] == ["caf\u00e9", "tea", "caf\u00e9"]


def test_an_invisible_difference_is_made_visible():
    [problem] = problems_of([row("sort", "one", "\u0410", 1)], [], [define("sort", labels=["A", "B"])])
    assert r"'А' ('\u0410') is not a label of task 'sort'; its labels are 'A', 'B'" in problem


def test_an_instruction_or_a_label_that_has_no_room_is_named_once():
    long = task_of([("a", "b")] * 3, instruction="s" * 100)
    with pytest.raises(InvalidDataset) as refused:
        check_fits([long], BYTES, 60, 1000)
    [problem] = refused.value.problems
    assert (
        problem.startswith("the instruction of task 'sort' takes 102 tokens") and "max_sequence_tokens is 60" in problem
    )
    heldout = task_of([("a", "b")], instruction="s" * 100, role="heldout")
    with pytest.raises(InvalidDataset, match="takes 102 tokens, and the model reads at most 90"):
        check_fits([heldout], BYTES, 60, 90)
    with pytest.raises(InvalidDataset, match="has 302 tokens and may have 256"):
        check_fits([task_of([("a", "b")], labels=["b", "c" * 300])], BYTES, 1000, 1000)


def test_labels_that_the_tokenizer_does_not_tell_apart_are_refused():
    folding = Encoder(lambda text: list(unicodedata.normalize("NFKC", text).encode()), start=(), stop=ord("\n"))
    with pytest.raises(InvalidDataset, match=r"does not tell the labels 'fi' and 'ﬁ' \('\\ufb01'\) apart"):
        check_fits([task_of([("a", "fi")], labels=["fi", "\ufb01"])], folding, 1000, 1000)


def test_a_file_with_too_many_tasks_is_refused_at_the_line_of_the_first_one_too_many():
    many = [chat_row(f"Sort {line}.", "one", "a", line) for line in range(1, MAX_TASKS + 3)]
    assert len(build_tasks(many[:MAX_TASKS], [], [])) == MAX_TASKS
    [problem] = problems_of(many, [], [])
    assert problem.startswith(f"line {MAX_TASKS + 1}: the training file has more than {MAX_TASKS} tasks; give lines")
    [problem] = problems_of(many[:1], many, [])
    assert problem.startswith(f"line {MAX_TASKS + 1}: the validation file has more than")


@pytest.mark.parametrize("written", ["A parcel came", "a  PARCEL\ncame"])
def test_an_input_in_both_files_is_refused_with_both_lines(written: str):
    training = [row("sort", "a box", "x", 1), row("sort", "a parcel came", "x", 5)]
    [problem] = problems_of(training, [row("sort", written, "x", 9)], [])
    assert problem.startswith("line 9 of the validation file: the same input is on line 5 of the training file")


def test_the_same_input_may_stand_in_two_trained_tasks_and_twice_in_one_file():
    training = [row("sort", "one", "a", 1), row("sort", "one", "a", 2), row("count", "one", "b", 3)]
    queries = [row("count", "two", "c", 1), row("sort", "two", "c", 2)]
    assert read(build_tasks(training, queries, [])) == {
        "sort": (["one", "one"], ["two"]),
        "count": (["one"], ["two"]),
    }


def test_every_problem_of_labels_and_leaks_is_told_at_once():
    definitions = [define("sort", labels=["a", "b"]), define("count", role="heldout")]
    training = [row("sort", "one", "c", 1), row("count", "One", "1", 2)]
    [label, leak] = problems_of(training, [], definitions)
    assert label.startswith("line 1: 'c' is not a label")
    assert leak.startswith("line 2 of the training file: the same input is on line 1 of the training file")


def test_a_held_out_task_may_not_test_on_its_demonstrations_either():
    definitions = [define("sort"), define("count", role="heldout")]
    [problem] = problems_of(TRAINING, [row("count", "two", "2", 1)], definitions)
    assert "line 1 of the validation file" in problem


def test_an_example_that_fits_no_sequence_is_named_by_its_line():
    task = task_of([("a", "b"), ("x" * 100, "b"), ("a", "y" * 100)])
    with pytest.raises(InvalidDataset) as refused:
        check_fits([task], BYTES, 60, 1000)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["line 2", "line 3"]
    assert "raise max_sequence_tokens" in refused.value.problems[0]


def test_an_example_of_a_held_out_task_stands_in_no_sequence_and_may_be_long():
    long = [("x" * 100, "b")]
    check_fits([task_of([("a", "b")]), task_of(long, "unseen", role="heldout")], BYTES, 60, 1000)
    with pytest.raises(InvalidDataset):
        check_fits([task_of(long)], BYTES, 60, 1000)


def test_a_conversation_counts_whole_in_the_length_limits():
    earlier = [Turn(input="x" * 30, output="y" * 30)]
    example = Example(input="a", output="b", line=3, earlier=earlier)
    task = task_of([("a", "b")]).model_copy(update={"demonstrations": [example]})
    tokens = len(BYTES.example(example))
    check_fits([task], BYTES, tokens, 1000)
    with pytest.raises(InvalidDataset, match=f"line 3: the example of task 'sort' takes {tokens} tokens"):
        check_fits([task], BYTES, tokens - 1, 1000)
    tested = task_of([("a", "b")]).model_copy(update={"queries": [example]})
    check_fits([tested], BYTES, 60, tokens)
    with pytest.raises(InvalidDataset, match="line 3 of the validation file: the query of task 'sort'"):
        check_fits([tested], BYTES, 60, tokens - 1)
