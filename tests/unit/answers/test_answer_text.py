"""The engine's text to the answer's, however it is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.answers.answer_text import AnswerText, JsonText, MatchedText, PlainText
from manyicl_core.method.encoding import ANSWER_TEMPLATE, escape_answer, unescape_answer

_tricky = st.text(alphabet="\\n\n ab", max_size=20) | st.text(max_size=20)


def streamed(text: PlainText, pieces: list[str]) -> str:
    return "".join([*(text.push(piece) for piece in pieces), text.flush()])


@given(st.lists(_tricky, max_size=8))
def test_pieces_of_an_answer_join_to_the_unescaped_whole(pieces: list[str]):
    assert streamed(AnswerText(), pieces) == unescape_answer("".join(pieces).lstrip())


@given(_tricky, st.data())
def test_an_answer_of_the_encoder_comes_back(answer: str, data: st.DataObject):
    written = ANSWER_TEMPLATE.format(output=escape_answer(answer.strip()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=4)))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    assert streamed(AnswerText(), pieces) == answer.strip()


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
