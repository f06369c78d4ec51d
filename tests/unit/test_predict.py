"""The script that goes with every download: it says what the service says, to the token."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaForCausalLM

from manyicl_core import predict
from manyicl_core.base_models.older_readers import readable_by_all
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.method.contexts import fill_context
from manyicl_core.method.encoding import escape_answer, unescape_answer
from manyicl_core.method.tasks import Example, Turn
from manyicl_core.store.jobs.use import TEMPLATE
from tests.unit.sample_tasks import instructions, pairs, texts


@pytest.fixture(scope="module")
def llama_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer built as Llama 2's is: a space before every text, bytes for what is unknown, a BOS token."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])
    special = [AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(vocab_size=340, special_tokens=[*special, *bytes_], show_progress=False)
    tokenizer.train_from_iterator(["Input: where is my parcel\nOutput: delivery"], trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["id"] < 3]
    folder = tmp_path_factory.mktemp("llama-2")
    (folder / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["byte level", "Llama 2"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("tiny_model" if request.param == "byte level" else "llama_2")


@lru_cache
def encoder_of(folder: Path) -> predict.Encoder:
    """The script's, over the tokenizer as a download holds it."""
    content = readable_by_all("tokenizer.json", (folder / "tokenizer.json").read_bytes())
    return predict.Encoder(Tokenizer.from_str(content.decode()), TEMPLATE)


def demonstration(example: Example) -> dict[str, object]:
    return example.model_dump(include={"input", "output", "earlier"})


@given(instructions, pairs, pairs, texts, st.integers(1, 400))
def test_prompts_and_answers_are_those_of_the_service(
    folder: Path, instruction: str, pairs_: list[tuple[str, str]], before: list[tuple[str, str]], text: str, most: int
):
    earlier = [Turn(input=input_, output=output) for input_, output in before]
    examples = [
        Example(input=input_, output=output, line=line, earlier=earlier if line == 1 else [])
        for line, (input_, output) in enumerate(pairs_)
    ]
    ours, theirs = load_encoder(folder), encoder_of(folder)
    query = ours.query(text)
    context = fill_context(ours, instruction, examples, most)
    shown = [demonstration(example) for example in examples]
    assert theirs.prompt(instruction, shown, text, most + len(query)) == [*context.tokens, *query]
    assert theirs.answer(text) == ours.answer(text)


@given(texts)
def test_what_an_answer_says_is_read_back(tiny_model: Path, text: str):
    encoder = encoder_of(tiny_model)
    assert encoder.text(encoder.answer(text)[:-1]) == unescape_answer(escape_answer(text.strip())) == text.strip()


def test_the_most_probable_answer_is_that_of_whole_sequences(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(predict, "PIECE", 12)
    model = LlamaForCausalLM.from_pretrained(tiny_model).eval()
    encoder = encoder_of(tiny_model)
    answers = [encoder.answer(label) for label in ("red", "dark blue", "green")]
    for text in ("thing 1", "a thing that is longer", "x"):
        prompt = encoder.prompt("Name the colour.", [{"input": "sky", "output": "dark blue"}], text, 500)
        scores = []
        for answer in answers:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            scores.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
        assert predict.most_probable(model, prompt, answers) == scores.index(max(scores))


def test_a_written_answer_is_what_transformers_generate(tiny_model: Path):
    model = LlamaForCausalLM.from_pretrained(tiny_model).eval()
    prompt = encoder_of(tiny_model).prompt("Add.", [], "1 and 1", 500)
    whole = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=20)[0].tolist()
    stop = whole[len(prompt) + 5]
    place = whole.index(stop, len(prompt))
    assert predict.written(model, prompt, stop, 20) == whole[len(prompt) : place]
    assert predict.written(model, prompt, stop, 2) == whole[len(prompt) : min(place, len(prompt) + 2)]
