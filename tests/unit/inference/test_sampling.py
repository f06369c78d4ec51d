"""How the next token is drawn, over a model whose probabilities are known."""

from collections import Counter

import pytest
import torch
from transformers import DynamicCache

from manyicl_core.inference.decoding import Sampling, decode
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import EMPTY_PREFIX
from manyicl_core.inference.shared_prefix import Layers
from manyicl_core.method.labels import LabelTree

PROBABILITIES = [0.15, 0.5, 0.05, 0.3]
DRAWS = 400


class KnownModel(LanguageModel):
    """Every next token has the same probabilities, whatever came before."""

    def __init__(self) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def hidden_states(
        self,
        tokens: torch.Tensor,
        cache: DynamicCache,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        prefix: Layers = (),
    ) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 1)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return torch.tensor(PROBABILITIES).log().expand(len(states), -1)


def drawn(sampling: Sampling, labels: LabelTree | None = None) -> Counter[int]:
    """What many rows draw as their first token."""
    [step] = decode(KnownModel(), EMPTY_PREFIX, [[0]] * DRAWS, 1, frozenset(), labels, sampling)
    return Counter(token for _, token in step)


def test_greedy_takes_the_most_likely_token():
    assert drawn(Sampling()) == {1: DRAWS}


def test_tokens_come_as_often_as_they_are_likely():
    counts = drawn(Sampling(temperature=1.0, seed=0))
    for token, probability in enumerate(PROBABILITIES):
        assert counts[token] / DRAWS == pytest.approx(probability, abs=0.06)


def test_a_high_temperature_evens_out_and_a_low_one_sharpens():
    counts = {temperature: drawn(Sampling(temperature=temperature, seed=0)) for temperature in (0.3, 1.0, 10.0)}
    assert counts[0.3][1] > counts[1.0][1] > counts[10.0][1]
    assert min(counts[10.0].values()) > DRAWS / 8


@pytest.mark.parametrize(
    ("top_p", "nucleus"), [(0.3, {1}), (0.49, {1}), (0.6, {1, 3}), (0.9, {0, 1, 3}), (1.0, {0, 1, 2, 3})]
)
def test_only_the_fewest_tokens_that_make_up_top_p_are_drawn(top_p: float, nucleus: set[int]):
    assert set(drawn(Sampling(temperature=1.0, top_p=top_p, seed=0))) == nucleus


def test_sampling_among_labels_keeps_their_proportions():
    counts = drawn(Sampling(temperature=1.0, seed=0), LabelTree([[0], [3]]))
    assert set(counts) == {0, 3}
    assert counts[3] / DRAWS == pytest.approx(2 / 3, abs=0.06)
