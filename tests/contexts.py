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
    return converse(client, model, ("user", "thing 11"), **manyicl)


def converse(
    client: OpenAI, model: str, *messages: tuple[str, str], **manyicl: Any
) -> openai.types.chat.ChatCompletion:
    """Ask with (role, content) pairs as messages."""
    said: Any = [{"role": role, "content": content} for role, content in messages]
    return client.chat.completions.create(
        model=model,
        messages=said,
        extra_body={"manyicl": manyicl} if manyicl else None,
    )


def told(answer: openai.types.chat.ChatCompletion) -> dict[str, Any]:
    """The answer's ``manyicl`` object."""
    assert answer.model_extra is not None
    return cast(dict[str, Any], answer.model_extra["manyicl"])
