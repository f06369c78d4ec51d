"""The encoder that a base model's tokenizer makes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from manyicl_core.base_models.tokenizer import (
    TextTokenizer,
    UnsupportedTokenizer,
    check_tokenizer,
    load_encoder,
    load_tokenizer,
)
from manyicl_core.method.tasks import Example
from tests.tiny_model import SPECIAL_TOKENS
from tests.tiny_tokenizers import metaspace, sentencepiece
from tests.unit.sample_tasks import texts

SPECIAL_IDS = set(range(len(SPECIAL_TOKENS)))


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_a_special_token_in_a_users_text_is_only_text(tiny_model: Path, special: str):
    encoder = load_encoder(tiny_model)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    text = f"one {special} two{special}"
    example = encoder.example(Example(input=text, output=text, line=1))
    for ids in (example.prompt, example.answer, encoder.instruction(text)):
        assert not SPECIAL_IDS & set(ids)
    assert tokenizer.decode(list(example.prompt), skip_special_tokens=True) == f"Input: {text}\nOutput:"
    assert SPECIAL_IDS & set(tokenizer.encode(special).ids), "the tokenizer alone would see a special token"


@given(texts)
def test_text_without_special_tokens_is_encoded_as_the_models_own_tokenizer_does(tiny_model: Path, text: str):
    own = AutoTokenizer.from_pretrained(tiny_model)
    assert load_encoder(tiny_model).tokenize(text) == own.encode(text, add_special_tokens=False)


def test_a_line_break_stops_an_answer(tiny_model: Path):
    encoder = load_encoder(tiny_model)
    assert encoder.tokenize("\n") == [encoder.stop]
    assert encoder.start == ()


def test_what_a_tokenizer_puts_before_every_text_starts_a_sequence_and_nothing_else(tiny_model: Path, tmp_path: Path):
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder, plain = load_encoder(tmp_path), load_encoder(tiny_model)
    assert encoder.start == (1,)
    assert encoder.instruction("Sort.") == [1, *plain.instruction("Sort.")]
    assert encoder.instruction("") == [1]
    example = Example(input="a", output="b", line=1)
    assert encoder.example(example) == plain.example(example)
    assert encoder.separator() == plain.separator()


@given(st.text(max_size=20))
def test_an_answer_holds_its_stop_once_at_the_end(tiny_model: Path, text: str):
    encoder = load_encoder(tiny_model)
    answer = encoder.answer(text)
    assert answer.index(encoder.stop) == len(answer) - 1


MARKUP = [
    AddedToken("<|im_end|>", special=True),
    AddedToken("<think>", special=False),
    AddedToken("<tool>", special=False, lstrip=True, rstrip=True),
    AddedToken("<Big>", special=False, normalized=True),
]


@pytest.mark.parametrize("make", [sentencepiece, metaspace])
@pytest.mark.parametrize(
    "text", ["a<|im_end|>b", "<think>", " <tool> x", "</s><s>", "<unk>", "<Big>", "<|im_end|>" * 3]
)
def test_no_added_token_is_read_in_a_users_text(make: Callable[..., Path], text: str, tmp_path: Path):
    tokenizer = load_tokenizer(make(tmp_path, added=MARKUP))
    ids = tokenizer.text_ids(text)
    assert not set(ids) & set(tokenizer.raw.get_added_tokens_decoder())
    assert tokenizer.raw.decode(ids, skip_special_tokens=False) == _as_kept(make, text)
    assert set(tokenizer.raw.encode(text).ids) & set(tokenizer.raw.get_added_tokens_decoder())


def test_look_alikes_that_become_a_control_token_by_normalisation_are_text(tmp_path: Path):
    control = AddedToken("<|im_end|>", special=True, normalized=True)
    tokenizer = load_tokenizer(sentencepiece(tmp_path, normalizers.NFKC(), [control]))
    written = "a\uff1c|im_end|\uff1e"
    [end] = {id_ for id_, token in tokenizer.raw.get_added_tokens_decoder().items() if token.content == "<|im_end|>"}
    assert end in tokenizer.raw.encode(written).ids, "the tokenizer alone is taken in"
    assert end not in tokenizer.text_ids(written)


def test_white_space_and_words_that_were_added_stay_what_they_are(tmp_path: Path):
    added = [AddedToken("\n\n", special=False), AddedToken("parcelservice", special=False)]
    tokenizer = load_tokenizer(metaspace(tmp_path, added=added))
    text = "one parcelservice\n\ntwo"
    assert tokenizer.text_ids(text) == tokenizer.raw.encode(text, add_special_tokens=False).ids
    assert len(tokenizer.line_breaks) == 2


@pytest.fixture(scope="module", params=[sentencepiece, metaspace])
def pieces(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Callable[..., Path], TextTokenizer]:
    """How a tokenizer of pieces was made, and what it is."""
    make = request.param
    return make, load_tokenizer(make(tmp_path_factory.mktemp("tokenizer"), added=MARKUP))


@given(texts)
def test_text_is_encoded_as_the_tokenizer_does_and_comes_back(
    pieces: tuple[Callable[..., Path], TextTokenizer], text: str
):
    make, tokenizer = pieces
    assert tokenizer.text_ids(text) == tokenizer.raw.encode(text, add_special_tokens=False).ids
    if "\u2581" not in text:  # which these tokenizers take for a space
        assert tokenizer.raw.decode(tokenizer.text_ids(text)) == _as_kept(make, text)


def _as_kept(make: Callable[..., Path], text: str) -> str:
    """The newer kind takes a space at the start of a text for the one that it would put there."""
    return text.removeprefix(" ") if make is metaspace else text


def test_a_text_is_never_cut_or_filled_up(tiny_model: Path, tmp_path: Path):
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "a long text of many words"
    assert load_encoder(tmp_path).tokenize(text) == load_encoder(tiny_model).tokenize(text)


def _words(folder: Path, normalizer: normalizers.Normalizer) -> Path:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, " ": 1, "a": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "normalizer", [normalizers.Replace("\n", " "), normalizers.Replace("\n", ""), normalizers.NFC()]
)
def test_a_tokenizer_that_does_not_know_line_breaks_is_refused(normalizer, tmp_path: Path):
    with pytest.raises(UnsupportedTokenizer, match="does not know line breaks"):
        check_tokenizer(_words(tmp_path, normalizer))


def test_a_tokenizer_without_an_end_or_without_a_file_is_refused(tmp_path: Path):
    with pytest.raises(UnsupportedTokenizer, match=r"has no tokenizer.json"):
        check_tokenizer(tmp_path)
    sentencepiece(tmp_path)
    check_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UnsupportedTokenizer, match="eos_token"):
        check_tokenizer(tmp_path)


def test_every_token_with_a_line_break_is_known(tiny_model: Path):
    tokenizer = load_tokenizer(tiny_model)
    assert tokenizer.encoder.stop in tokenizer.line_breaks
    assert tokenizer.line_breaks == {
        id_ for id_ in range(tokenizer.raw.get_vocab_size()) if "\n" in tokenizer.raw.decode([id_])
    }
    assert len(tokenizer.line_breaks) > 1
