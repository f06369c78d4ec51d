"""The lines between a job's process and its supervisor."""

import io

import pytest
from pydantic import ValidationError

from manyicl_core.contract.evidence import Baseline, Evidence, ResultWarning
from manyicl_core.contract.progress import (
    CheckpointSaved,
    CurveResult,
    EvaluationResult,
    Failed,
    Message,
    PlainTextResult,
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
        model="base",
        task="sort",
        family="",
        role="heldout",
        k=4,
        shots=3,
        metric="f1",
        value=0.5,
        low=0.1,
        high=0.9,
        queries=10,
        draws=2,
        seconds=1.0,
        seconds_per_query=0.05,
        items_file="items-0.jsonl",
        evidence=Evidence(
            baseline=Baseline(answer="6", share=0.3, value=0.3, macro_f1=None, difference=0.2, low=-0.1, high=0.4),
            distinct_answers=3,
            macro_f1=None,
            labels=None,
            confusion=None,
            warnings=[ResultWarning(code="no_better_than_most_frequent_answer", message="…")],
        ),
    ),
    CurveResult(model="base", task="sort", exact_match=[0.0, 0.5], answers=[2, 2]),
    PlainTextResult(model="base", cross_entropy=3.5, tokens=2000),
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
