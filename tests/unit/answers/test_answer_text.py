"""The engine's text to the answer's, however it is cut into pieces."""

import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.answers.answer_text import (
    AnswerText,
    JsonText,
    LabelText,
    MatchedText,
    PlainText,
    StoppedText,
    engine_stops,
)
from manyicl_core.method.encoding import ANSWER_TEMPLATE, escape_answer, unescape_answer
from tests.unit.inference.test_text import cut

_BREAKS = "\n\r\v\f\x85\u2028\u2029"
_tricky = st.text(alphabet=f"\\nrx02{_BREAKS} ab", max_size=20) | st.text(max_size=20)
_stops = st.lists(st.text(alphabet=f"\\nrx02{_BREAKS} ab", min_size=1, max_size=3), max_size=4)


def streamed(text: PlainText, pieces: list[str]) -> str:
    return "".join([*(text.push(piece) for piece in pieces), text.flush()])


def cut_anywhere(data: st.DataObject, text: str) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.lists(_tricky, max_size=8))
def test_pieces_of_an_answer_join_to_the_unescaped_whole(pieces: list[str]):
    assert streamed(AnswerText(), pieces) == unescape_answer("".join(pieces).lstrip())


@given(_tricky, st.data())
def test_an_answer_of_the_encoder_comes_back(answer: str, data: st.DataObject):
    written = ANSWER_TEMPLATE.format(output=escape_answer(answer.strip()))
    assert streamed(AnswerText(), cut_anywhere(data, written)) == answer.strip()


@pytest.mark.parametrize("end", ["\n", "\r\n", *_BREAKS])
def test_an_answer_keeps_its_own_kind_of_line_break(end: str):
    answer = f"def f():{end}    return 1{end}# done"
    written = ANSWER_TEMPLATE.format(output=escape_answer(answer))
    assert len(written.splitlines()) == 1
    assert streamed(AnswerText(), list(written)) == answer


@given(st.data())
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_a_label_is_told_as_listed_however_the_tokenizer_spells_it(
    form: Literal["NFC", "NFD", "NFKC"], data: st.DataObject
):
    labels = ["cafe\u0301", "th\u00e9", "\uff21\uff22", "two\r\nlines", "\\n", "a"]
    label = data.draw(st.sampled_from(labels))
    written = unicodedata.normalize(form, ANSWER_TEMPLATE.format(output=escape_answer(label)))
    assert streamed(LabelText(labels), cut_anywhere(data, written)) == label
    assert streamed(LabelText(labels), [" caf"]) == "caf"


@given(st.lists(_tricky, max_size=8))
def test_json_passes_without_the_space_before_it(pieces: list[str]):
    assert streamed(JsonText(), pieces) == "".join(pieces).lstrip()


@given(st.lists(_tricky, max_size=8))
def test_what_matches_an_expression_passes_without_one_space_before_it(pieces: list[str]):
    assert streamed(MatchedText(), pieces) == "".join(pieces).removeprefix(" ")


@given(st.lists(_tricky, max_size=8))
def test_a_chats_text_passes_as_it_is(pieces: list[str]):
    assert streamed(PlainText(), pieces) == "".join(pieces)


def test_a_piece_is_given_on_as_soon_as_it_is_certain():
    text = AnswerText()
    assert [text.push(piece) for piece in (" ", " yes", ", no", "\\", "n", "!")] == ["", "yes", ", no", "", "\n", "!"]


@given(_tricky, _stops, st.data())
def test_an_answer_ends_before_the_first_stop_string_that_the_client_reads(
    answer: str, stops: list[str], data: st.DataObject
):
    answer = answer.strip()
    written = ANSWER_TEMPLATE.format(output=escape_answer(answer))
    told = cut(written, engine_stops(stops, escaped=True))
    text = StoppedText(AnswerText(), stops)
    assert streamed(text, cut_anywhere(data, told)) == cut(answer, stops)
    assert (text.stopped or told != written) == any(stop in answer for stop in stops)


@given(_tricky, _stops, st.data())
def test_a_match_ends_before_the_first_stop_string_too(answer: str, stops: list[str], data: st.DataObject):
    told = cut(f" {answer}", engine_stops(stops, escaped=False))
    assert streamed(StoppedText(MatchedText(), stops), cut_anywhere(data, told)) == cut(answer, stops)


@pytest.mark.parametrize(
    ("stops", "escaped", "free"),
    [
        (["a\nb", "é"], ["a\\nb", "é"], ["a\nb", "é"]),
        (["no"], [], ["no"]),
        (["\\"], [], ["\\"]),
        (["\n"], [], []),
        (["a", " "], [], []),
        ([], [], []),
    ],
)
def test_the_engine_looks_for_what_it_cannot_mistake(stops: list[str], escaped: list[str], free: list[str]):
    assert (engine_stops(stops, escaped=True), engine_stops(stops, escaped=False)) == (escaped, free)
