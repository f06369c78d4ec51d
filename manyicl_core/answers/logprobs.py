"""Log-probabilities of a completion in the shape of a chat's."""

from collections.abc import Iterable
from typing import Any

from manyicl_core.answers.answer_text import PlainText
from manyicl_core.answers.objects import ChatLogprobs, ChosenTokenLogprob, TokenLogprob


def chat_logprobs(told: dict[str, Any] | None, most: int) -> ChatLogprobs | None:
    """``choice.logprobs`` of a chat out of that of a completion, ours or vLLM's.

    Tokens are told as the model wrote them: a task's first one starts with a space, and escapes
    are not resolved.

    Args:
        told: the engine's object.
        most: how many alternatives a token has; vLLM tells the chosen one on top of them.
    """
    if told is None:
        return None
    tops = told["top"] if "top" in told else map(_ranked, told["top_logprobs"])
    octets = told.get("bytes") or [None] * len(told["tokens"])
    content: list[ChosenTokenLogprob] = [
        {**_entry(token, logprob, of_token), "top_logprobs": _entries(top, most)}
        for token, logprob, of_token, top in zip(told["tokens"], told["token_logprobs"], octets, tops, strict=True)
    ]
    return {"content": content, "refusal": None}


def until_stop(told: dict[str, Any] | None, text: PlainText) -> dict[str, Any] | None:
    """Of the ``logprobs`` of a completion those up to the token that completes a stop string; ``text`` is new."""
    if told is None:
        return None
    kept: list[str] = []
    for token in told["tokens"]:
        kept.append(token)
        text.push(token)
        if text.stopped:
            break
    return {name: values[: len(kept)] for name, values in told.items()}


def _entries(top: Iterable[dict[str, Any]], most: int) -> list[TokenLogprob]:
    return [_entry(other["token"], other["logprob"], other.get("bytes")) for other in top][:most]


def _ranked(top: dict[str, float] | None) -> list[dict[str, Any]]:
    pairs = sorted((top or {}).items(), key=lambda pair: -pair[1])
    return [{"token": token, "logprob": logprob} for token, logprob in pairs]


def _entry(token: str, logprob: float, octets: list[int] | None) -> TokenLogprob:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if octets is None else octets}
