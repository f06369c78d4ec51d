"""What an answer may be: a closed set of labels, or a grammar."""

import json
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from manyicl_core.inference.requests import Choices, Generation, Grammar, Refusal
from manyicl_core.method.labels import LabelTree

_LARGEST_MULTIPLE = 10_000
_LIMITS = LLParserLimits(step_lexer_fuel=50_000)
"""A quarter of the library's own: a step of a hostile grammar then takes 0.3 seconds at most, and not 6."""


class BadGrammar(ValueError):
    """The JSON Schema or regular expression cannot be followed; the message says why."""


class GrammarTooHard(Refusal):
    """The grammar turned out, inside an answer, to be more than can be followed."""

    status = 400
    code = "invalid_grammar"


class LabelGuide:
    """Follows an answer through a label tree; runs of tokens without a choice are forced."""

    def __init__(self, labels: LabelTree) -> None:
        self._labels = labels
        self._written: list[int] = []

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave the tokens that continue a label."""
        allowed = torch.tensor(self._labels.allowed(self._written))
        left = torch.full_like(logits, -torch.inf)
        left[allowed] = logits[allowed]
        return left

    def accept(self, token: int) -> list[int]:
        """Go on to the next choice."""
        forced = self._labels.forced([*self._written, token])
        self._written += [token, *forced]
        return forced

    @property
    def is_complete(self) -> bool:
        """Whether a whole label is written."""
        return not self._labels.allowed(self._written)


def compiled_grammar(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """The grammar, ready to be followed. It can take a second: not between the steps of others.

    Raises:
        BadGrammar: llguidance cannot follow it.
    """
    matcher = LLMatcher(tokenizer, grammar, limits=_LIMITS)
    if matcher.is_error():
        raise BadGrammar(_reason(matcher))
    return matcher


def json_grammar(schema: dict[str, Any] | None) -> str:
    """The grammar of JSON texts that fit ``schema``; of any JSON object without one.

    Raises:
        BadGrammar: it asks for the multiples of a large number, which takes minutes to compile.
    """
    _check_multiples(schema)
    return str(
        LLMatcher.grammar_from_json_schema(
            json.dumps(schema or {"type": "object"}),
            # As json.dumps writes it: where any white space may stand, small models write nothing else.
            {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
    )


def regex_grammar(pattern: str) -> str:
    """The grammar of texts that a regular expression matches as a whole."""
    return str(LLMatcher.grammar_from_regex(pattern))


class GrammarGuide:
    """Follows an answer through a grammar (llguidance: a mask over the vocabulary takes microseconds)."""

    def __init__(self, grammar: LLMatcher) -> None:
        self._matcher = grammar.deep_copy()

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave the tokens after which the text can still be completed."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").astype(bool)
        return logits.masked_fill(~torch.from_numpy(allowed), -torch.inf)

    def accept(self, token: int) -> list[int]:
        """Go on by ``token``; nothing is forced, as the model should split texts into tokens in its own way."""
        self._matcher.consume_token(token)
        self._check()
        return []

    @property
    def is_complete(self) -> bool:
        """Whether the text is complete and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        """A matcher that fails only says so when it is asked; until then its text looks complete."""
        if self._matcher.is_error():
            raise GrammarTooHard(f"structured_outputs: {_reason(self._matcher)}; use a simpler grammar")


def guide_of(request: Generation) -> LabelGuide | GrammarGuide | None:
    """What leads one answer to the request; None: it is free."""
    match request.guide:
        case Choices(labels):
            return LabelGuide(labels)
        case Grammar(matcher):
            return GrammarGuide(matcher)
        case None:
            return None


def _reason(matcher: LLMatcher) -> str:
    return str(matcher.get_error()).strip().splitlines()[0]


def _check_multiples(schema: Any) -> None:
    if isinstance(schema, dict):
        number = schema.get("multipleOf")
        if isinstance(number, int | float) and abs(number) > _LARGEST_MULTIPLE:
            raise BadGrammar(f"multipleOf may be at most {_LARGEST_MULTIPLE}")
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _check_multiples(part)
