"""Forgetting, seen on plain text: cross-entropy on a fixed text that has no task in it."""

from importlib.resources import files

import torch

from manyicl_core.contract.progress import PlainTextResult
from manyicl_core.inference.language_model import TunedModel
from manyicl_core.method.encoding import Encoder

_CHUNK = 512


def plain_text() -> str:
    """About 1,500 words of English prose, written for this measurement."""
    return (files("manyicl_core.evaluation") / "plain_text.txt").read_text(encoding="utf-8")


def measure_plain_text(model: TunedModel, name: str, encoder: Encoder) -> PlainTextResult:
    """The mean over the text's tokens, in documents of 512; the first token of each is given."""
    return cross_entropy(model, name, encoder.start, encoder.tokenize(plain_text()))


def cross_entropy(model: TunedModel, name: str, start: tuple[int, ...], text: list[int]) -> PlainTextResult:
    """Nats a token of ``text``, cut into documents of 512 tokens that each begin with ``start``."""
    total, tokens = 0.0, 0
    for begin in range(0, len(text), _CHUNK):
        document = torch.tensor([*start, *text[begin : begin + _CHUNK]], device=model.language_model.device)
        given = max(1, len(start))
        if len(document) == given:
            continue
        states = model.states(document)
        logits = model.language_model.logits(states[given - 1 : -1])
        total += float(torch.nn.functional.cross_entropy(logits, document[given:], reduction="sum"))
        tokens += len(document) - given
    return PlainTextResult(model=name, cross_entropy=total / tokens, tokens=tokens)
