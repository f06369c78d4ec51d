"""One answer in the making: from the model's logits to tokens, until it is complete."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

FinishReason = Literal["stop", "length"]

_COLDEST = 1e-5
"""Below it the most likely token is as good as certain."""

_APART = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd: its multiples are spread evenly (Knuth, The Art of Computer Programming 3, 6.4)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy.

    Attributes:
        logit_bias: added to the logits of these token ids.
        logprobs: tell each token's log-probability under the model alone, and so many most likely ones; a token
            that the guide forces is told as certain, for the model is not asked.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the most likely token is always the one."""
        return not (self.temperature or self.presence_penalty or self.frequency_penalty or self.logit_bias)


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability, and the most likely tokens in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Guide(Protocol):
    """A closed set of answers, or a grammar; it follows the answer token by token."""

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits [vocabulary]`` with those of tokens that may not come next at minus infinity."""

    def accept(self, token: int) -> list[int]:
        """Go on by ``token``; the tokens that must follow it are written without asking the model."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""


@dataclass(slots=True)
class Answer:
    """The tokens written so far, and how to go on.

    An answer ends with a token of ``stop`` (which it then holds), where its guide is complete, or
    after ``max_tokens``.
    """

    sampling: Sampling
    max_tokens: int
    stop: frozenset[int]
    guide: Guide | None = None
    number: int = 0
    written: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    _generator: torch.Generator | None = None

    @property
    def takes_the_best(self) -> bool:
        """Whether the next token is the most likely one and nothing else is asked for."""
        return self.guide is None and self.sampling.is_plain and self.sampling.logprobs is None

    def push_best(self, token: int) -> list[int]:
        """Go on by the most likely token, where ``takes_the_best``."""
        return self._write([token])

    def push(self, logits: torch.Tensor) -> list[int]:
        """Choose from ``logits``, float32 ``[vocabulary]``; gives the new tokens, several where no choice is left."""
        chosen = self._choose(logits)
        if self.sampling.logprobs is not None:
            self.logprobs.append(token_logprob(logits, chosen, self.sampling.logprobs))
        forced = self.guide.accept(chosen) if self.guide is not None else []
        # A token without a choice is certain: the model has no logits for it.
        if self.sampling.logprobs is not None:
            self.logprobs += [TokenLogprob(token, 0.0, ((token, 0.0),)) for token in forced]
        return self._write([chosen, *forced])

    def _write(self, tokens: list[int]) -> list[int]:
        room = self.max_tokens - len(self.written)
        tokens = tokens[:room]
        for index, token in enumerate(tokens):
            if token in self.stop:
                tokens = tokens[: index + 1]
                self.finish = "stop"
        self.written += tokens
        if self.finish is None and self.guide is not None and self.guide.is_complete:
            self.finish = "stop"
        if self.finish is None and len(self.written) >= self.max_tokens:
            self.finish = "length"
        del self.logprobs[len(self.written) :]
        return tokens

    def _choose(self, logits: torch.Tensor) -> int:
        sampling = self.sampling
        if not sampling.is_plain or self.guide is not None:
            logits = logits.clone()
        for token, bias in sampling.logit_bias:
            logits[token] += bias
        if sampling.presence_penalty or sampling.frequency_penalty:
            for token, count in Counter(self.written).items():
                logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
        if self.guide is not None:
            logits = self.guide.restrict(logits)
        if sampling.temperature < _COLDEST:
            return int(logits.argmax())
        # The best at zero: no temperature then makes an infinity, or nothing but zeros.
        probabilities = torch.softmax((logits - logits.max()) / sampling.temperature, dim=-1)
        if sampling.top_p < 1.0:
            ranked, order = probabilities.sort(descending=True)
            outside = ranked.cumsum(0) - ranked >= sampling.top_p
            probabilities = torch.zeros_like(probabilities).scatter(0, order, ranked.masked_fill(outside, 0.0))
        return int(torch.multinomial(probabilities, 1, generator=self._random()))

    def _random(self) -> torch.Generator:
        """The answer's own dice: what others in the batch draw changes nothing."""
        if self._generator is None:
            self._generator = torch.Generator(device="cpu")
            if self.sampling.seed is None:
                self._generator.seed()
            else:
                # The first answer of a seed is always the same, however many are asked for; the others are far from
                # those of seeds nearby, which many people count up.
                self._generator.manual_seed((self.sampling.seed + self.number * _APART) % 2**63)
        return self._generator


def token_logprob(logits: torch.Tensor, token: int, top: int) -> TokenLogprob:
    """Of ``token`` under ``logits``, float32 ``[vocabulary]``, with the ``top`` most likely ones."""
    total = logits.logsumexp(dim=-1)
    values, tokens = logits.topk(top) if top else (logits[:0], logits[:0])
    best = zip(tokens.tolist(), (values - total).tolist(), strict=True)
    return TokenLogprob(token, float(logits[token] - total), tuple((int(id_), value) for id_, value in best))
