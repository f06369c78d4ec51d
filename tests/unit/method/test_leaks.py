"""What is tested must not be trained on: exact leaks are problems, near leaks are shown."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method.leaks import RUN, NearLeak, exact_leaks, near_leaks
from manyicl_core.method.tasks import Example, Task, TaskDefinition, Turn

TEN = "the old green boat left the harbour before seven boys"


def example(text: str, line: int = 1, *earlier: tuple[str, str]) -> Example:
    turns = [Turn(input=input_, output=output) for input_, output in earlier]
    return Example(input=text, output="x", line=line, earlier=turns)


def task(name: str, shown: list[Example], queries: list[Example] | None = None, role: str = "train") -> Task:
    definition = TaskDefinition.model_validate({"name": name, "role": role})
    return Task(definition=definition, demonstrations=shown, queries=queries or [])


@pytest.mark.parametrize("written", ["A parcel came", "a  PARCEL\ncame"])
def test_a_query_that_another_task_trains_on_is_named_with_both_lines_and_tasks(written: str):
    tasks = [task("sort", [example("b")], [example(written, 9)]), task("count", [example("a parcel came", 5)])]
    assert list(exact_leaks(tasks)) == [
        "line 9 of the validation file: the same input is on line 5 of the training file (tasks 'sort' and 'count'); "
        "remove one"
    ]


def test_an_input_that_only_looks_the_same_leaks_too():
    composed, decomposed = (
        "A caf\u00e9 by the sea that nobody knew before last May",
        "a cafe\u0301  by the sea that nobody KNEW before last May",
    )
    tasks = [task("count", [example(composed)], [example(decomposed)])]
    assert len(list(exact_leaks(tasks))) == 1
    [leak] = near_leaks([task("count", [example("Or " + composed)], [example(decomposed)])])
    assert leak.words == "a caf\u00e9 by the sea that nobody knew before last"


def test_a_query_that_its_own_task_trains_on_or_shows_is_named():
    for role in ("train", "heldout"):
        [problem] = exact_leaks([task("sort", [example("a", 3)], [example("a", 7)], role)])
        assert problem.startswith("line 7 of the validation file: the same input is on line 3 of the training file")
        assert "(task 'sort')" in problem


def test_a_held_out_example_that_is_trained_on_is_named():
    tasks = [task("new", [example("A", 4)], role="heldout"), task("sort", [example("a", 2)])]
    assert list(exact_leaks(tasks)) == [
        "line 4 of the training file: the same input is on line 2 of the training file (tasks 'new' and 'sort'); "
        "remove one: what is held out is not trained on"
    ]


def test_what_is_not_trained_on_leaks_into_no_other_task():
    tasks = [
        task("one", [example("a")], [example("q")], "heldout"),
        task("two", [example("a")], [example("q")], "heldout"),
        task("three", [example("b"), example("b")], [example("q"), example("q")]),
        task("four", [example("b")]),
    ]
    assert list(exact_leaks(tasks)) == []


def test_a_conversation_is_its_whole_prompt():
    opening = ("Hello", "How can I help?")
    trained = task("sort", [example("yes", 1, opening, ("It broke", "Again?")), example("yes", 2, ("Hi", "Sure?"))])
    other = task("new", [example("z")], [example("yes"), example("yes", 2, ("hi", "really?"))])
    assert list(exact_leaks([trained, other])) == []
    for leaked in (example("hello"), example("IT broke", 1, opening), example("yes", 1, ("hi", "sure?"))):
        [problem] = exact_leaks([trained, task("new", [example("z")], [leaked])])
        assert "the same input" in problem


def test_a_run_of_ten_words_is_a_near_leak_and_nine_are_not():
    trained = task("boats", [example("nothing"), example(f"They say {TEN} came.", 2)])
    nine = " ".join(TEN.split()[1:])
    queries = [example(f"So {nine}!", 3), example(f"So: {TEN.upper()}, then", 4)]
    tasks = [trained, task("ships", [example("z")], queries)]
    [leak] = near_leaks(tasks)
    assert leak == NearLeak("ships", "validation", 4, "boats", 2, TEN)
    assert str(leak) == (
        "line 4 of the validation file (task 'ships') shares 10 words with line 2 of the training file "
        f"(trained task 'boats'): {TEN!r}"
    )


def test_numbers_are_masked():
    trained = task("sums", [example("Ann buys 12 pens at 3.50 each, then she sells 7,000 more")])
    query = example("Ann buys 5 pens at 4 each, then she sells 1 more")
    [leak] = near_leaks([trained, task("other", [example("z")], [query])])
    assert leak.words == "ann buys # pens at # each then she sells"


def test_examples_of_held_out_tasks_are_compared_and_queries_of_every_task():
    trained = task("boats", [example(TEN, 1)], [example(f"a {TEN}", 2)])
    unseen = task("new", [example(f"b {TEN}", 3)], [example(f"c {TEN}", 4)], "heldout")
    found = [(leak.task, leak.part, leak.line) for leak in near_leaks([unseen, trained])]
    assert found == [("new", "training", 3), ("new", "validation", 4), ("boats", "validation", 2)]


def test_held_out_tasks_share_among_themselves_what_they_like():
    unseen = [task(name, [example(TEN)], [example(TEN)], "heldout") for name in ("one", "two")]
    assert near_leaks([*unseen, task("three", [example("short")])]) == []
    assert near_leaks([]) == []


def test_earlier_inputs_count_and_no_run_goes_from_one_text_into_the_next():
    words = TEN.split()
    halves = (" ".join(words[:5]), " ".join(words[5:]))
    trained = task("boats", [example(TEN, 1)])
    tested = task(
        "new", [example("z")], [example("yes", 2, (f"well {TEN}", "a")), example(halves[1], 3, (halves[0], ""))]
    )
    assert [leak.line for leak in near_leaks([trained, tested])] == [2]
    in_two = task("boats", [example(halves[0], 1), example(halves[1], 2)])
    assert near_leaks([in_two, task("new", [example("z")], [example(TEN)])]) == []
    assert near_leaks([in_two, task("new", [example("z")], in_two.demonstrations)]) == []


def test_very_long_words_are_cut_in_what_is_shown():
    text = " ".join(["ab" * 1000] * RUN)
    [leak] = near_leaks([task("one", [example(text)], [example(text + " c")])])
    assert len(leak.words) == 200


_pieces = st.sampled_from([TEN, " ".join(TEN.split()[:6]), " ".join(TEN.split()[6:]), "a b"])
_texts = st.lists(st.lists(_pieces, max_size=4).map(" ".join), min_size=1, max_size=6)


@given(_texts, _texts)
def test_the_hashed_search_finds_what_a_plain_search_finds(trained: list[str], tested: list[str]):
    def runs(text: str) -> list[str]:
        words = text.split()
        return [" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]

    expected = []
    for line, text in enumerate(tested, start=1):
        found = [(run, other) for run in runs(text) for other, seen in enumerate(trained, start=1) if run in runs(seen)]
        if found:
            expected.append((line, found[0][1], found[0][0]))
    tasks = [
        task("one", [example(text, line) for line, text in enumerate(trained, start=1)]),
        task("two", [example("z")], [example(text, line) for line, text in enumerate(tested, start=1)]),
    ]
    assert [(leak.line, leak.other_line, leak.words) for leak in near_leaks(tasks)] == expected


def test_fifty_thousand_examples_are_compared_in_seconds():
    shown = [
        example(f"message w{line % 977} " + TEN.replace("boat", "boat" * (line % 89)), line) for line in range(40_000)
    ]
    queries = [example(f"letter {line} about {TEN}", line) for line in range(10_000)]
    started = time.process_time()
    leaks = near_leaks([task("one", shown), task("two", [example("z")], queries)])
    assert time.process_time() - started < 30, "compared by pairs it would take hours"
    assert [leak.other_line for leak in leaks] == [1] * 10_000
