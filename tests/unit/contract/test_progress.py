"""The lines between a job's process and its supervisor."""

import io

import pytest
from pydantic import ValidationError

from manyicl_core.contract.progress import (
    CheckpointSaved,
    EvaluationResult,
    Failed,
    Message,
    Started,
    StepMetrics,
    Trained,
    parse,
    report,
)

MESSAGES: list[Message] = [
    Started(step=0, steps=3, tokens=100, answers=9, target_tokens=30, dtype="float32"),
    StepMetrics(
        step=1,
        loss=2.5,
        token_accuracy=0.25,
        learning_rate=1e-4,
        gradient_norm=1.0,
        tokens=33,
        answers=3,
        seconds=0.5,
        loss_by_answer={0: 3.0, 2: 2.0},
        accuracy_by_answer={0: 0.0, 2: 1.0},
    ),
    CheckpointSaved(step=2, folder="a folder\nwith a line break"),
    CheckpointSaved(step=2, folder="folder", valid_loss=1.5, best=True),
    Trained(step=3, folder="folder", peak_memory_bytes=1),
    EvaluationResult(
        task="sort", family="", role="heldout", k=4, metric="f1", base=0.1, tuned=0.9, queries=10, seconds=1.0
    ),
    Failed(code="disk_full", message="größer \u2028"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)
def test_a_reported_message_is_one_line_and_is_read_back(message: Message):
    stream = io.StringIO()
    report(message, stream)
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written.endswith("\n")
    assert parse(written) == message


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", "{}", '{"type":"unknown"}', "[]"])
def test_a_line_that_is_no_message_is_refused(line: str):
    with pytest.raises(ValidationError):
        parse(line)
