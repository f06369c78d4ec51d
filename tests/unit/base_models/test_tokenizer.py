"""The encoder that a base model's tokenizer makes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.method.tasks import Example
from tests.tiny_model import SPECIAL_TOKENS
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
