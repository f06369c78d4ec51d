"""Cross-entropy on plain text, before and after."""

import math
from pathlib import Path

import pytest
import torch

from manyicl_core.base_models.load import load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.progress import PlainTextResult
from manyicl_core.evaluation.plain_text import cross_entropy, plain_text
from manyicl_core.evaluation.run import evaluate
from manyicl_core.inference.language_model import TunedModel
from tests.unit.evaluation.specs import make_spec


def test_the_text_is_about_fifteen_hundred_words_of_prose():
    words = plain_text().split()
    assert 1400 < len(words) < 1700
    assert len({word.lower() for word in words}) > 500


@torch.no_grad()
def plain_nats(folder: Path, documents: list[list[int]]) -> float:
    """The mean by transformers' own loss, weighted by how many tokens each document predicts."""
    model = load_base_model(folder, torch.device("cpu"), torch.float32)
    total = sum(
        float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss) * (len(ids) - 1)
        for ids in documents
    )
    return total / sum(len(ids) - 1 for ids in documents)


@pytest.mark.parametrize("start", [(), (1,)])
def test_documents_of_512_tokens_are_scored_as_transformers_does(
    base: TunedModel, tiny_model: Path, start: tuple[int, ...]
):
    text = [3 + (7 * number * number) % 300 for number in range(1200)]
    found = cross_entropy(base, "base", start, text)
    documents = [[*start, *text[begin : begin + 512]] for begin in (0, 512, 1024)]
    assert found.cross_entropy == pytest.approx(plain_nats(tiny_model, documents), rel=1e-5)
    assert found.tokens == 1200 - (0 if start else 3)


def test_a_last_token_with_nothing_before_it_is_left_out(base: TunedModel):
    assert cross_entropy(base, "base", (), list(range(3, 300)) + list(range(3, 219))).tokens == 511


@pytest.mark.usefixtures("on_the_processor")
def test_an_evaluation_measures_the_text_of_the_package(tiny_model: Path, adapter: Path, tmp_path: Path):
    spec = make_spec(tiny_model, {"base": None, "tuned": adapter}, plain_text=["tuned", "base"])
    base, tuned = evaluate(spec, tmp_path)
    assert isinstance(base, PlainTextResult) and isinstance(tuned, PlainTextResult)
    assert (base.model, tuned.model) == ("base", "tuned")
    text = load_encoder(tiny_model).tokenize(plain_text())
    assert base.tokens == tuned.tokens == len(text) - math.ceil(len(text) / 512)
    assert base.cross_entropy != tuned.cross_entropy
