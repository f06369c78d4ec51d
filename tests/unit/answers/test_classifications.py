"""Many inputs, several requests to the engine, one answer."""

import asyncio
import math
from typing import Any

import pytest

from manyicl_core.answers.classifications import ClassificationCall, CreateClassification, answer_classification
from manyicl_core.errors import Overloaded, UserError
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


class SecretiveEngine(ScoringEngine):
    """Tells of some prompts only what was compiled before."""

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await super().complete(path, body)
        if len(body["prompts"]) == 1:
            del answer["usage"]["prompt_tokens_details"]
        return answer


class FullEngine(ScoringEngine):
    """Refuses its first requests of a number of prompts."""

    def __init__(self, refusals: dict[int, list[UserError]]) -> None:
        super().__init__()
        self.refusals = refusals
        self.asked: list[int] = []

    async def complete(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        prompts = len(body["prompts"])
        self.asked.append(prompts)
        if self.refusals.get(prompts):
            raise self.refusals[prompts].pop()
        return await super().complete(path, body)


def test_a_part_for_which_there_is_no_room_costs_no_other_part():
    prompt = HostedPrompt(prefix=(), query=(1,), shots=0, stop_token=9, labels=LABELS)
    call = ClassificationCall([{"prompts": [[1], [4]]}, {"prompts": [[10]]}], prompt, LABELS)
    body = CreateClassification(model="m", input=["a", "b", "c"])

    def answered(refusals: dict[int, list[UserError]], wait_seconds: float | None) -> list[int]:
        engine = FullEngine(refusals)
        assert len(asyncio.run(answer_classification(engine, call, body, wait_seconds))["data"]) == 3
        return engine.asked

    def full(after_ms: int = 1) -> UserError:
        return Overloaded("full", after_ms)

    assert answered({1: [full(), full()]}, 60) == [2, 1, 1, 1]
    assert answered({1: [full()]}, None) == [2, 1, 1]
    with pytest.raises(Overloaded):
        answered({1: [full(after_ms=100_000)]}, 60)
    with pytest.raises(Overloaded):  # nothing is lost yet, and who asks may go elsewhere
        answered({2: [full()]}, 60)


def test_inputs_keep_their_order_over_several_requests():
    prompt = HostedPrompt(prefix=(), query=(1,), shots=0, stop_token=9, labels=LABELS)
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


def test_tokens_that_were_compiled_before_are_told_only_when_they_are_known_of_all_inputs():
    prompt = HostedPrompt(prefix=(), query=(1,), shots=0, stop_token=9, labels=LABELS)
    call = ClassificationCall([{"prompts": [[1], [4]]}, {"prompts": [[10]]}], prompt, LABELS)
    body = CreateClassification(model="m", input=["a", "b", "c"])
    answer = asyncio.run(answer_classification(SecretiveEngine(), call, body))
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": None}
    assert "cached_tokens" not in answer["manyicl"]
