"""Which tokens of a sequence are learnt."""

import pytest

from manyicl_core.method.objectives import supervised_spans, target_positions
from manyicl_core.method.sequences import EncodedTask
from tests.unit.sample_tasks import BYTES, numbered_task


def test_many_icl_learns_every_answer_of_a_sequence():
    sequence = EncodedTask(numbered_task(4), BYTES).assemble((2, 0, 1))
    spans = supervised_spans("many_icl", sequence)
    assert [bytes(sequence.tokens[start:end].tolist()) for start, end in spans] == [b" 002\n", b" 000\n", b" 001\n"]


def test_target_positions_are_those_inside_the_spans_in_order():
    assert target_positions(((2, 4), (7, 10))).tolist() == [2, 3, 7, 8, 9]


def test_a_token_that_nothing_comes_before_cannot_be_learnt():
    with pytest.raises(AssertionError, match="first token"):
        target_positions(((0, 2),))
