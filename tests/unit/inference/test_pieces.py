"""A tokenizer of pieces, as Llama 2 and Mistral have it: labels, grammars and texts are those that were trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.inference.guides import GrammarGuide, compiled_grammar, json_grammar, regex_grammar
from manyicl_core.inference.text import TextStream
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.method.encoding import ANSWER_TEMPLATE, escape_answer
from tests.tiny_tokenizers import metaspace, sentencepiece

SIZE = 384
LABELS = ["billing", "delivery", "dark blue", "no", "not", "1", "é", "two\nlines", "a  b", "\\n", "</s>", "🦙"]


@pytest.fixture(scope="module", params=[sentencepiece, metaspace])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("pieces"))


@pytest.fixture(scope="module")
def pieces(folder: Path) -> Vocabulary:
    return Vocabulary(folder, SIZE)


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_guided_by_the_tokens_that_were_trained(folder: Path, pieces: Vocabulary, label: str):
    encoder = load_encoder(folder)
    written = ANSWER_TEMPLATE.format(output=escape_answer(label))
    assert [*pieces.plain(written), encoder.stop] == encoder.answer(label)


def told(pieces: Vocabulary, tokens: list[int], before: list[int]) -> str:
    stream = TextStream(pieces.texts, [], before)
    return "".join([*(stream.push(token) for token in tokens), stream.flush()])


@pytest.mark.parametrize("label", LABELS)
def test_what_is_written_behind_a_prompt_is_told_with_its_space(folder: Path, pieces: Vocabulary, label: str):
    encoder = load_encoder(folder)
    assert told(pieces, encoder.answer(label)[:-1], encoder.query("where is it")).lstrip() == escape_answer(label)


@given(st.text(alphabet="ab é🦙 \n", max_size=12), st.text(alphabet="ab é🦙 \n", min_size=1, max_size=12))
def test_pieces_join_to_what_the_whole_text_has_more(pieces: Vocabulary, before: str, after: str):
    first, second = pieces.plain(f"Input:{before}"), pieces.plain(after)
    whole = pieces.texts.decode([*first, *second])
    assert pieces.texts.decode(first) + told(pieces, second, first) == whole


def _guided(pieces: Vocabulary, grammar: str, seed: int) -> str:
    """What a model that knows nothing writes under a grammar."""
    guide = GrammarGuide(compiled_grammar(pieces.grammars, grammar))
    random = torch.Generator().manual_seed(seed)
    written: list[int] = []
    while not guide.is_complete and len(written) < 400:
        token = int(guide.restrict(torch.randn(SIZE, generator=random)).argmax())
        guide.accept(token)
        written.append(token)
    return told(pieces, [token for token in written if token != pieces.end], pieces.plain("Output:"))


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_under_a_grammar_is_told_as_it_matches(pieces: Vocabulary, seed: int):
    assert _guided(pieces, regex_grammar(" (?: billing|no é)x\n"), seed) in (" " + " billingx\n", " no éx\n")
    schema = {"type": "object", "properties": {"a b": {"enum": [" dark blue", "é"]}}, "required": ["a b"]}
    text = _guided(pieces, json_grammar({**schema, "additionalProperties": False}), seed)
    assert text in ('{"a b": " dark blue"}', '{"a b": "é"}')


def test_a_token_is_shown_with_its_space_and_special_ones_by_name(pieces: Vocabulary):
    [billing] = [id_ for id_ in range(SIZE) if pieces.texts.id_to_token(id_) == "▁billing"]
    assert pieces.token_text(billing) == " billing"
    assert pieces.token_text(pieces.end) == "</s>"


def test_tokens_without_a_logit_are_never_written(folder: Path):
    few = Vocabulary(folder, 300)
    guide = GrammarGuide(compiled_grammar(few.grammars, regex_grammar("[a-z]{3}")))
    left = guide.restrict(torch.zeros(300))
    assert left.shape == (300,)
    assert torch.isfinite(left).any()
