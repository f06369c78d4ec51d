"""Text to tokens: one line an answer, one template for training and serving."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.method import encoding
from manyicl_core.method.encoding import escape_answer, template_hash, unescape_answer
from manyicl_core.method.tasks import Example, Turn
from tests.unit.sample_tasks import BYTES, examples_of, pairs, texts

# Texts full of what escaping is about.
_tricky = st.text(alphabet="\\nrx0b\n\r\v\x85\u2028 a", max_size=20) | st.text(max_size=20)


@given(_tricky)
def test_an_answer_comes_back_from_its_escape(text: str):
    assert unescape_answer(escape_answer(text)) == text


@given(_tricky)
def test_an_escaped_answer_is_one_line(text: str):
    assert len(escape_answer(f"a{text}b").splitlines()) == 1 or not set("\x1c\x1d\x1e").isdisjoint(text)


@given(st.text(alphabet="\\nrx \n", max_size=20))
def test_an_answer_without_other_line_breaks_is_escaped_as_adapters_have_learned_it(text: str):
    assert escape_answer(text) == text.replace("\\", "\\\\").replace("\n", "\\n")


def test_what_a_model_writes_that_is_no_escape_stays():
    assert (
        unescape_answer(r"\frac{1}{2} \rho C:\reports \u0041 \x41 \v") == r"\frac{1}{2} \rho C:\reports \u0041 \x41 \v"
    )


@given(_tricky, _tricky)
def test_two_answers_never_share_an_escape(first: str, second: str):
    assert (escape_answer(first) == escape_answer(second)) == (first == second)


def test_a_backslash_before_any_other_character_stays():
    assert unescape_answer(r"\t \d end\ ") == r"\t \d end\ "


def test_an_example_reads_as_the_template_says():
    example = BYTES.example(Example(input="  two\nlines ", output=" yes\nno ", line=1))
    assert bytes(example.prompt).decode() == "Input: two\nlines\nOutput:"
    assert bytes(example.answer).decode() == " yes\\nno\n"
    assert len(example) == len(example.prompt) + len(example.answer)


def test_braces_in_a_users_text_are_text():
    assert bytes(BYTES.query("{input} {0}")).decode() == "Input: {input} {0}\nOutput:"
    assert bytes(BYTES.instruction("{instruction}")).decode() == "{instruction}\n\n"


@given(pairs, texts, texts)
def test_a_query_after_a_context_is_token_for_token_a_longer_context(pairs_, query, answer):
    demonstrations = [BYTES.example(example) for example in examples_of(pairs_)]
    asked = [*BYTES.context("Sort.", demonstrations), *BYTES.query(query), *BYTES.answer(answer)]
    longer = BYTES.context("Sort.", [*demonstrations, BYTES.example(Example(input=query, output=answer, line=1))])
    assert [*asked, *BYTES.separator()] == longer


turns = st.lists(st.builds(Turn, input=texts, output=texts, trained=st.booleans()), max_size=3)


@given(turns, texts, texts, st.booleans())
def test_a_conversations_earlier_turns_are_demonstrations_before_its_query(earlier, query, answer, trained):
    demonstrations = [BYTES.example(Example(input=turn.input, output=turn.output, line=1)) for turn in earlier]
    example = Example(input=query, output=answer, line=1, earlier=earlier, trained=trained)
    encoded = BYTES.example(example)
    assert list(encoded.prompt) == BYTES.query(query, earlier)
    assert list(encoded.prompt) == [*BYTES.context("", demonstrations), *BYTES.query(query)]
    assert list(encoded.answer) == BYTES.answer(answer)
    whole = [*encoded.prompt, *encoded.answer]
    counted = [turn.output for turn in earlier if turn.trained] + [answer] * trained
    assert [whole[start:end] for start, end in encoded.targets] == [BYTES.answer(output) for output in counted]


def test_an_empty_instruction_adds_nothing():
    assert BYTES.instruction(" \n") == []
    assert BYTES.context("", []) == []


@pytest.mark.parametrize(
    "part",
    ["ENCODER_VERSION", "INSTRUCTION_TEMPLATE", "PROMPT_TEMPLATE", "ANSWER_TEMPLATE", "STOP", "SEPARATOR"],
)
def test_the_template_hash_changes_with_every_part(part: str, monkeypatch: pytest.MonkeyPatch):
    before = template_hash()
    assert template_hash() == before
    monkeypatch.setattr(encoding, part, "another")
    assert template_hash() != before
