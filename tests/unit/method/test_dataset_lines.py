"""Training files line by line: what is wrong is said with its line number, and nothing else is raised."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.dataset import (
    MAX_LINE_BYTES,
    MAX_LINE_CHARACTERS,
    InvalidDataset,
    Row,
    chat_task_name,
)
from tests.unit.sample_tasks import parse_rows, texts

GOOD = {"task": "sort", "input": "a box came", "output": "parcel"}


def line_of(content: object) -> bytes:
    return json.dumps(content).encode()


def chat(*messages: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def problems_of(*lines: bytes) -> list[str]:
    with pytest.raises(InvalidDataset) as refused:
        parse_rows(lines)
    return refused.value.problems


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"task": "sort", "input": ', "invalid JSON"),
        (b"input,output", "invalid JSON"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"task": "sort", "input": "a", "output": ' + b"9" * 5000 + b"}", "integers have 64 bits"),
        (b'{"task": "sort", "input": "a", "output": 1e999}', "1e999 is too large"),
        (b'{"task": "sort", "input": "a", "output": NaN}', "NaN is no JSON number"),
        (b'{"task": "sort", "input": "a", "input": "b", "output": "c"}', "the key 'input' occurs twice"),
        (b'["a", "b"]', "not a JSON object"),
        (b"null", "not a JSON object"),
        (line_of({**GOOD, "output": ""}), "'output' is empty"),
        (line_of({**GOOD, "input": " \t\n"}), "'input' is empty"),
        (line_of({**GOOD, "input": "\u00a0"}), "'input' is empty"),
        (line_of({**GOOD, "output": "\u001c"}), "is empty"),
        (line_of({**GOOD, "label": "x"}), "unknown field 'label'"),
        (line_of({"task": "sort", "input": "a"}), "'output' is missing"),
        (line_of({"input": "a", "output": "b"}), "'task' is missing"),
        (line_of({}), "'task' is missing"),
        (line_of({**GOOD, "output": 3}), "'output': Input should be a valid string"),
        (line_of({**GOOD, "input": None}), "'input' is missing"),
        (line_of({"messages": None}), "'task' is missing"),
        (line_of({"messages": [{"role": "user", "content": "u"}, None]}), "'messages.1'"),
        (line_of({**GOOD, "weight": None, "messages": []}), "at least 2 items"),
        (line_of({**GOOD, "task": "x" * 65}), "'task': String should have at most 64 characters"),
        (line_of({**GOOD, "task": ""}), "'task' is empty"),
        (line_of({**GOOD, "input": "\ud800"}), "half of a surrogate pair"),
        (line_of({**GOOD, "input": "a\x00b"}), "a NUL character"),
        (line_of({**GOOD, "output": "a\x00b"}), "a NUL character"),
        (line_of({**GOOD, "task": "a\x00b"}), "a NUL character"),
        (line_of(chat(("system", "a\x00b"), ("user", "u"), ("assistant", "a"))), "a NUL character"),
        ("{'task': 'Größe'}".encode("latin-1"), "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"{\x00}\x00", "UTF-16"),
        (b"x" * (MAX_LINE_BYTES + 1), f"more than {MAX_LINE_BYTES} bytes"),
        (line_of({**GOOD, "input": "x" * MAX_LINE_CHARACTERS}), f"a line may have {MAX_LINE_CHARACTERS}"),
        (line_of(chat()), "at least 2 items"),
        (line_of(chat(("user", "u"))), "at least 2 items"),
        (line_of({**GOOD, "weight": 1}), "unknown field 'weight'"),
        (line_of(chat(("user", "u"), ("assistant", " "))), "'messages.1.content' is empty"),
        (line_of(chat(("user", "u"), ("judge", "a"))), "'messages.1.role'"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_its_fault(line: bytes, said: str):
    [problem] = problems_of(line_of(GOOD), b"\n", line, line_of(GOOD))
    assert problem.startswith("line 3: ")
    assert said in problem


def test_every_bad_line_is_named_in_order():
    problems = problems_of(b"no", line_of(GOOD), b"\xff", line_of({**GOOD, "output": " "}))
    assert [problem.split(":")[0] for problem in problems] == ["line 1", "line 3", "line 4"]


def test_the_message_lists_ten_problems_and_counts_the_rest():
    with pytest.raises(InvalidDataset) as refused:
        parse_rows([b"no"] * 13)
    assert len(refused.value.problems) == 13
    message = str(refused.value)
    assert "line 10:" in message
    assert "line 11:" not in message
    assert message.endswith("and 3 more")


@pytest.mark.parametrize("lines", [[], [b""], [b"\n", b"  \r\n"], [b"\xef\xbb\xbf"]])
def test_a_file_without_an_example_is_refused(lines: list[bytes]):
    [problem] = problems_of(*lines)
    assert problem.startswith("line 1: the file holds no example")


def test_a_byte_order_mark_is_accepted_at_the_start_only():
    marked = b"\xef\xbb\xbf" + line_of(GOOD)
    assert parse_rows([marked]) == parse_rows([line_of(GOOD)])
    assert problems_of(line_of(GOOD), marked)[0].startswith("line 2: invalid JSON")


def test_lines_are_stripped_and_counted_from_one_with_blank_lines():
    rows = parse_rows([b"\r\n", b"  " + line_of({**GOOD, "input": "  two\nlines "}) + b"\r\n", b"", line_of(GOOD)])
    assert [(row.example.line, row.example.input) for row in rows] == [(2, "two\nlines"), (4, "a box came")]


_written = st.tuples(st.text(min_size=1, max_size=10), texts, texts).filter(lambda row: "\x00" not in "".join(row))


@given(st.lists(_written, min_size=1, max_size=6))
def test_what_is_written_as_task_lines_is_read(written):
    lines = [line_of({"task": task, "input": input_, "output": output}) for task, input_, output in written]
    assert [(row.task, row.instruction, row.example.input, row.example.output) for row in parse_rows(lines)] == [
        (task, None, input_.strip(), output.strip()) for task, input_, output in written
    ]


def test_chat_lines_are_named_by_their_system_message():
    [first, second, other, without] = parse_rows(
        [
            line_of(chat(("system", "Sort it."), ("user", "u"), ("assistant", "a"))),
            line_of(chat(("system", " Sort it.\n"), ("user", "v"), ("assistant", "b"))),
            line_of(chat(("system", "Count it."), ("user", "u"), ("assistant", "a"))),
            line_of(chat(("user", "u"), ("assistant", "a"))),
        ]
    )
    assert (
        (first.task, first.instruction) == (second.task, second.instruction) == (chat_task_name("Sort it."), "Sort it.")
    )
    assert other.task == chat_task_name("Count it.")
    assert (without.task, without.instruction) == (chat_task_name(""), "")
    assert len({first.task, other.task, without.task}) == 3
    assert (second.example.input, second.example.output, second.example.line) == ("v", "b", 2)


@pytest.mark.parametrize(
    "columns",
    [{"messages": None}, {"source": None, "weight": None}, {"messages": None, "source": None, "tools": None}],
)
def test_columns_that_are_null_say_nothing_in_a_task_line(columns: dict[str, None]):
    assert parse_rows([line_of({**GOOD, **columns})]) == parse_rows([line_of(GOOD)])


@pytest.mark.parametrize("weight", [None, 1, 1.0])
def test_columns_that_are_null_say_nothing_in_a_chat_line_at_any_level(weight: float | None):
    plain = chat(("user", "u"), ("assistant", "a"))
    asked, answered = plain["messages"]
    table = {
        "messages": [{**asked, "source": None, "weight": None}, {**answered, "name": None, "weight": weight}],
        **dict.fromkeys([*GOOD, "source"]),
    }
    assert parse_rows([line_of(table)]) == parse_rows([line_of(plain)])


def test_a_weight_is_a_whole_number_as_a_table_writes_it():
    first, second = chat(("user", "u"), ("assistant", "a"))["messages"] * 2, chat(("user", "v"), ("assistant", "b"))
    zero = {"messages": [first[0], {**first[1], "weight": 0.0}, *second["messages"]]}
    [row] = parse_rows([line_of(zero)])
    assert not row.example.earlier[0].trained
    half = {"messages": [first[0], {**first[1], "weight": 0.5}]}
    assert problems_of(line_of(half))[0].endswith("must be 0 or 1")


def test_a_system_message_is_as_long_as_it_is():
    instruction = "s" * 100_000
    [row] = parse_rows([line_of(chat(("system", instruction), ("user", "u"), ("assistant", "a")))])
    assert row.instruction == instruction


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["task", "input", "output", "messages", "role", "content"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
_roles = st.sampled_from(["system", "user", "assistant", "tool", None])
_messages = st.fixed_dictionaries(
    {"role": _roles, "content": st.text(max_size=5)}, optional={"weight": _json, "tool_calls": _json}
)
_chats = st.lists(_messages, max_size=4).map(lambda messages: {"messages": messages})
_lines = st.just(line_of(GOOD)) | st.binary(max_size=40) | (_json | _chats).map(line_of)


@given(st.lists(_lines, max_size=6))
def test_any_bytes_give_rows_or_an_invalid_dataset_and_nothing_else(lines: list[bytes]):
    rows: list[Row] = []
    problems: list[str] = []
    try:
        rows = parse_rows(lines)
    except InvalidDataset as error:
        problems = error.problems
    assert bool(rows) != bool(problems)
    assert all(problem.startswith("line ") for problem in problems)
    for row in rows:
        assert 1 <= row.example.line <= len(lines)
        assert row.example.input.strip() == row.example.input != ""
        assert row.example.output.strip() == row.example.output != ""
        assert "\x00" not in row.task + row.example.input + row.example.output + (row.instruction or "")
