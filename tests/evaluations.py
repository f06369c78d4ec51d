"""Evaluations over the ``openai`` client, which has no methods of its own for them."""

import json
from typing import Any, cast

from openai import OpenAI

from tests.services import wait_for

QUERY = {"shots": [0, 2], "queries": 3, "seed": 5}


def create_evaluation(client: OpenAI, **body: Any) -> dict[str, Any]:
    return cast(dict[str, Any], client.post("/evaluations", body=body, cast_to=object))


def get_evaluation(client: OpenAI, evaluation_id: str) -> dict[str, Any]:
    return cast(dict[str, Any], client.get(f"/evaluations/{evaluation_id}", cast_to=object))


def cancel_evaluation(client: OpenAI, evaluation_id: str) -> dict[str, Any]:
    return cast(dict[str, Any], client.post(f"/evaluations/{evaluation_id}/cancel", cast_to=object))


def list_events(client: OpenAI, evaluation_id: str) -> list[dict[str, Any]]:
    page = cast(dict[str, Any], client.get(f"/evaluations/{evaluation_id}/events?limit=1000", cast_to=object))
    return cast(list[dict[str, Any]], page["data"])


def predictions(client: OpenAI, evaluation_id: str) -> list[dict[str, Any]]:
    text = client.get(f"/evaluations/{evaluation_id}/predictions", cast_to=str)
    return [json.loads(line) for line in text.splitlines()]


def await_evaluation(client: OpenAI, evaluation_id: str, *states: str) -> dict[str, Any]:
    """Wait until the evaluation is in one of ``states``."""
    latest: list[dict[str, Any]] = []

    def reached() -> bool:
        latest[:] = [get_evaluation(client, evaluation_id)]
        return latest[0]["status"] in states

    wait_for(reached, f"evaluation {evaluation_id} to be {' or '.join(states)}")
    return latest[0]
