"""The engine: one thread that owns the model and answers one request after the other."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.decoding import Sampling, decode
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix, compile_prefix
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.text import TextStream
from manyicl_core.method.labels import LabelTree

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One request.

    Attributes:
        adapter: hash of the fine-tuned weights, or None for the base model.
        prompt: token ids.
        prefix_tokens: how many of them are a context, worth keeping compiled.
        choices: token ids of the allowed answers, each with its stop token; None for free text.
    """

    adapter: str | None
    prompt: tuple[int, ...]
    prefix_tokens: int
    max_tokens: int
    sampling: Sampling
    stop_texts: list[str]
    stop_tokens: frozenset[int]
    choices: list[list[int]] | None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer; the last one has a ``finish_reason``."""

    text: str
    completion_tokens: int
    cached_tokens: int
    finish_reason: FinishReason | None = None


class Engine:
    """A base model with its adapters and prefixes. Not thread-safe: one thread calls it."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, adapters: Adapters, prefixes: PrefixStore) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._adapters = adapters
        self._prefixes = prefixes

    @property
    def max_tokens(self) -> int:
        """The longest prompt and answer together."""
        return self._model.max_tokens

    def generate(self, request: Generation, cancelled: threading.Event) -> Iterator[Delta]:
        """Answer, piece by piece, until it is complete or ``cancelled``.

        Raises:
            UnknownAdapter: there are no such weights.
            DoesNotFit: there is no memory for them.
        """
        model = self._adapters.activate(request.adapter)
        prefix, cached = self._prefix(model, request)
        query = request.prompt[len(prefix.tokens) :]
        labels = LabelTree(request.choices) if request.choices is not None else None
        text = TextStream(self._tokenizer, request.stop_texts)
        written = 0
        steps = decode(model, prefix, [query], request.max_tokens, request.stop_tokens, labels, request.sampling)
        for step in steps:
            if cancelled.is_set():
                return
            piece = ""
            finish: FinishReason | None = None
            for _, token in step:
                written += 1
                if token in request.stop_tokens:
                    finish = "stop"
                    break
                piece += text.push(token)
                if text.stopped:
                    finish = "stop"
                    break
            if finish is None and written >= request.max_tokens:
                finish = "length"
            if finish is not None:
                yield Delta(piece + text.flush(), written, cached, finish)
                return
            yield Delta(piece, written, cached)

    def _prefix(self, model: LanguageModel, request: Generation) -> tuple[Prefix, int]:
        """The compiled context and how many of its tokens needed no work."""
        # At least one token is left for the query: its logits give the first answer token.
        tokens = request.prompt[: min(request.prefix_tokens, len(request.prompt) - 1)]
        if not tokens:
            return EMPTY_PREFIX, 0
        if known := self._prefixes.get(request.adapter, tokens):
            return known, len(tokens)
        prefix = compile_prefix(model, tokens)
        self._prefixes.put(request.adapter, prefix)
        return prefix, 0
