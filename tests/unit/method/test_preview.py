"""A sequence's text is what its tokens say, and its answers are where they say."""

import pytest
from hypothesis import given

from manyicl_core.method.objectives import Objective, supervised_answers
from manyicl_core.method.preview import show_sequence
from manyicl_core.method.sequences import EncodedTask, Sequence
from manyicl_core.method.tasks import Example, Task, TaskDefinition, Turn
from tests.unit.sample_tasks import BYTES, pairs, task_of


def encoded_all(task: Task, alone: bool = False) -> Sequence:
    return EncodedTask(task, BYTES).assemble(tuple(range(len(task.demonstrations))), alone)


@given(pairs)
@pytest.mark.parametrize("alone", [False, True])
def test_the_text_and_its_answers_are_those_of_the_tokens(alone, pairs_):
    task = task_of(pairs_, instruction="Sort.")
    sequence = encoded_all(task, alone)
    raw = bytes(sequence.tokens.tolist())
    shown = show_sequence(task, sequence, "zero_shot" if alone else "many_icl")
    assert shown.text == raw.decode()
    assert len(shown.documents) == len(sequence.documents)
    for answer, known in zip(shown.answers, sequence.answers, strict=True):
        assert shown.text[answer.start : answer.end].encode() == raw[known.start : known.end]
        assert answer.shot == known.shot


@pytest.mark.parametrize("objective", ["many_icl", "few_shot"])
def test_what_is_supervised_is_what_the_loss_covers(objective: Objective) -> None:
    talk = [Turn(input="a", output="1"), Turn(input="b", output="2", trained=False)]
    examples = [
        Example(input="c", output="3", line=1, earlier=talk),
        Example(input="d", output="4", line=2, trained=False),
        Example(input="e", output="5", line=3, earlier=talk[:1]),
    ]
    task = Task(definition=TaskDefinition(name="talk"), demonstrations=examples)
    sequence = encoded_all(task)
    shown = show_sequence(task, sequence, objective)
    learnt = [shown.text[answer.start : answer.end].strip() for answer in shown.answers if answer.supervised]
    assert learnt == (["1", "3", "1", "5"] if objective == "many_icl" else ["1", "5"])
    assert len(learnt) == len(supervised_answers(objective, sequence))


def test_only_the_demonstrations_of_the_sequence_are_shown() -> None:
    task = task_of([("a", "1"), ("b", "2"), ("c", "3")])
    sequence = EncodedTask(task, BYTES).assemble((2, 0))
    assert show_sequence(task, sequence, "many_icl").text == "Input: c\nOutput: 3\n\nInput: a\nOutput: 1\n"
