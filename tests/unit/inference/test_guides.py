"""What a grammar allows is all that is written, whatever the model would rather say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyicl_core.inference.answer import GREEDY, Answer, Sampling
from manyicl_core.inference.decoding import Decoder, Row
from manyicl_core.inference.guides import (
    BadGrammar,
    GrammarGuide,
    GrammarTooHard,
    compiled_grammar,
    json_grammar,
    regex_grammar,
)
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import EMPTY_PREFIX
from manyicl_core.inference.requests import Generation, Grammar
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.driving import CONTEXT, Driven

queries = st.lists(st.integers(3, 383), min_size=1, max_size=6)
samplings = st.sampled_from(
    [Sampling(), Sampling(temperature=1.5, seed=1), Sampling(temperature=0.7, top_p=0.5, seed=2)]
)

_leaves = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "integer", "minimum": -5, "maximum": 120},
        {"enum": ["complaint", "praise", 'a "quoted" one', "Überraschung"]},
        {"const": None},
        {"type": "string", "maxLength": 6},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
    ]
)
_names = st.lists(st.sampled_from(["name", "in stock", "preis €", "x"]), min_size=1, max_size=3, unique=True)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": 2}


schemas = st.recursive(
    _leaves,
    lambda inner: (
        inner.map(_array)
        | _names.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, inner))).map(_object)
    ),
    max_leaves=3,
)


def write(model: LanguageModel, vocabulary: Vocabulary, grammar: str, query: list[int], sampling: Sampling) -> str:
    answer = Answer(
        sampling, 400, frozenset({vocabulary.end}), GrammarGuide(compiled_grammar(vocabulary.grammars, grammar))
    )
    decoder = Decoder(model)
    decoder.join(Row(None, EMPTY_PREFIX, query, answer))
    while decoder.rows:
        decoder.step()
    assert answer.finish == "stop"
    return vocabulary.texts.decode(answer.written)


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether ``value`` is what ``schema`` asks for, of the few that occur here."""
    match schema:
        case {"enum": values}:
            found = value in values
        case {"const": constant}:
            found = value is constant
        case {"type": "boolean"}:
            found = isinstance(value, bool)
        case {"type": "integer", "minimum": low, "maximum": high}:
            found = isinstance(value, int) and low <= value <= high
        case {"type": "string", "maxLength": most}:
            found = isinstance(value, str) and len(value) <= most
        case {"type": "string", "pattern": pattern}:
            found = isinstance(value, str) and re.search(pattern, value) is not None
        case {"type": "array", "items": items}:
            found = isinstance(value, list) and 1 <= len(value) <= 2 and all(fits(items, item) for item in value)
        case {"properties": properties}:
            found = value.keys() == properties.keys() and all(fits(properties[name], value[name]) for name in value)
        case _:
            raise AssertionError(schema)
    return bool(found)


@settings(max_examples=40)
@given(schemas, queries, samplings)
def test_an_answer_is_json_that_fits_its_schema(base_only, vocabulary, schema, query, sampling):
    text = write(base_only, vocabulary, json_grammar(schema), query, sampling)
    assert fits(schema, json.loads(text)), text


@settings(max_examples=10)
@given(queries)
def test_an_answer_is_a_json_object_of_any_kind(base_only, vocabulary, query):
    """Nothing bounds it, so it may be cut off; until then a JSON object goes on from it."""
    answer = Answer(
        Sampling(temperature=1.0, seed=3),
        60,
        frozenset({vocabulary.end}),
        GrammarGuide(compiled_grammar(vocabulary.grammars, json_grammar(None))),
    )
    decoder = Decoder(base_only)
    decoder.join(Row(None, EMPTY_PREFIX, query, answer))
    while decoder.rows:
        decoder.step()
    text = vocabulary.texts.decode(answer.written)
    assert text.startswith("{")
    if answer.finish == "stop":
        assert isinstance(json.loads(text), dict)


@settings(max_examples=20)
@given(
    st.sampled_from(
        ["[0-9]{3}", "(yes|no)", "a{1,5}b?c{2}", "[A-Z][a-z]{0,4}( [A-Z])?", r"\d{1,2}:\d{2}", "äöü|€[1-9]"]
    ),
    queries,
    samplings,
)
def test_an_answer_matches_its_regular_expression(base_only, vocabulary, pattern, query, sampling):
    text = write(base_only, vocabulary, regex_grammar(pattern), query, sampling)
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "pattern": "("},
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"allOf": 5},
        {"properties": {"a": {"anyOf": [{"type": "integer", "multipleOf": 999_983}]}}},
    ],
)
def test_a_schema_that_cannot_be_followed_says_why(vocabulary: Vocabulary, schema: dict[str, Any]):
    with pytest.raises((BadGrammar, ValueError), match=r"\w"):
        compiled_grammar(vocabulary.grammars, json_grammar(schema))


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{2,1}", "(?=x)", r"(a)\1"])
def test_a_pattern_that_cannot_be_followed_says_why(vocabulary: Vocabulary, pattern: str):
    with pytest.raises((BadGrammar, ValueError), match=r"\w"):
        compiled_grammar(vocabulary.grammars, regex_grammar(pattern))


def test_answers_of_one_request_follow_the_grammar_each_on_its_own(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path)
    ticket = engine.submit(
        Generation(
            adapter=None,
            prompt=CONTEXT,
            max_tokens=100,
            n=6,
            sampling=Sampling(temperature=2.0, seed=1),
            stop_tokens=frozenset({vocabulary.end}),
            guide=Grammar(compiled_grammar(vocabulary.grammars, regex_grammar("[a-z]{2}(-[0-9]{2}){1,3}"))),
        )
    )
    engine.finish()
    texts = [engine.text(ticket, index) for index in range(6)]
    assert len(set(texts)) > 1
    for text in texts:
        assert re.fullmatch("[a-z]{2}(-[0-9]{2}){1,3}", text)


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "[bc]{40}(a{1000}){1000}"])
def test_a_grammar_that_turns_out_too_hard_ends_its_answer_alone(
    base_only: LanguageModel, vocabulary: Vocabulary, pattern: str
):
    """Otherwise the text so far would look complete."""
    grammar = compiled_grammar(vocabulary.grammars, regex_grammar(pattern))
    decoder = Decoder(base_only)
    hard = Row(None, EMPTY_PREFIX, [5, 6], Answer(GREEDY, 60, frozenset({vocabulary.end}), GrammarGuide(grammar)))
    other = Row(None, EMPTY_PREFIX, [5, 6], Answer(GREEDY, 60, frozenset()))
    decoder.join(hard)
    decoder.join(other)
    while hard.error is None:
        assert hard.answer.finish is None
        decoder.step()
    decoder.leave(hard)
    while decoder.rows:
        decoder.step()
    assert isinstance(hard.error, GrammarTooHard) and len(hard.answer.written) <= 41
    assert len(other.answer.written) == 60
