"""Contexts over the ``openai`` client, which has no methods of its own for them."""

from typing import Any, cast

import openai
from openai import OpenAI

from tests.services import BASE_MODEL

EXAMPLES = [{"input": f"thing {number}", "output": "red" if number % 3 else "dark blue"} for number in range(10)]
PASTED = {"model": BASE_MODEL, "instruction": "Name the colour.", "labels": ["red", "dark blue"], "examples": EXAMPLES}


def create_context(client: OpenAI, **body: Any) -> dict[str, Any]:
    return cast(dict[str, Any], client.post("/contexts", body=body, cast_to=object))


def get_context(client: OpenAI, context_id: str) -> dict[str, Any]:
    return cast(dict[str, Any], client.get(f"/contexts/{context_id}", cast_to=object))


def delete_context(client: OpenAI, context_id: str) -> dict[str, Any]:
    return cast(dict[str, Any], client.delete(f"/contexts/{context_id}", cast_to=object))


def ask(client: OpenAI, model: str, **manyicl: Any) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "thing 11"}],
        extra_body={"manyicl": manyicl} if manyicl else None,
    )


def told(answer: openai.types.chat.ChatCompletion) -> dict[str, Any]:
    """The answer's ``manyicl`` object."""
    assert answer.model_extra is not None
    return cast(dict[str, Any], answer.model_extra["manyicl"])
