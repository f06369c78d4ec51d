"""Many inputs, several requests to the engine, one answer."""

import asyncio
import math
from typing import Any

import pytest

from manyicl_core.answers.classifications import ClassificationCall, CreateClassification, answer_classification
from manyicl_core.store.contexts.service import HostedPrompt
from tests.unit.answers.test_chat import ScriptedEngine

LABELS = ("red", "dark blue")


class ScoringEngine(ScriptedEngine):
    """Scores the labels of a prompt by its only token."""

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = len(body["prompts"])
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        scores = [[math.log(0.5), math.log(0.1 * prompt[0])] for prompt in body["prompts"]]
        return {"scores": scores, "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 1}}}


def test_inputs_keep_their_order_over_several_requests():
    prompt = HostedPrompt(tokens=(1,), context_tokens=0, shots=0, stop_token=9, labels=LABELS)
    call = ClassificationCall([{"prompts": [[1], [4]]}, {"prompts": [[10]]}], prompt, LABELS)
    body = CreateClassification(model="m", input=["a", "b", "c"])
    answer = asyncio.run(answer_classification(ScoringEngine(), call, body))
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    assert [entry["label"] for entry in answer["data"]] == ["red", "red", "dark blue"]
    last = answer["data"][2]
    assert last["probabilities"] == {"red": pytest.approx(1 / 3), "dark blue": pytest.approx(2 / 3)}
    assert last["probability"] == last["probabilities"]["dark blue"]
    assert last["label_mass"] == pytest.approx(1.5)  # no real model's: shows that nothing is normalised
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
