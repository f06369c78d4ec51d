"""Prefixes in 8 bits: a quarter of float32's memory, near to what they were, and kept as they are."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.eight_bits import EightBitLayers
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.requests import LabelScoring
from manyicl_core.inference.vocabulary import Vocabulary
from tests.unit.inference.driving import Driven, found

KEY = PrefixKey(None, "", tuple(range(30, 330)))


@given(st.integers(0, 1000), st.sampled_from([1e-6, 1.0, 300.0]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_every_number_is_half_a_step_away_at_most(seed: int, size: float, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(seed)
    # Channels of very different sizes, as keys have; one of nothing but zeros.
    keys, values = (torch.randn(1, 2, 9, 8, generator=generator).mul(size) for _ in range(2))
    keys *= torch.tensor([0.0, 0.01, 1, 1, 1, 1, 1, 100])
    keys, values = keys.to(dtype), values.to(dtype)
    [(found_keys, found_values)] = list(EightBitLayers.pack([(keys, values)]))
    rounding = 0.0 if dtype == torch.float32 else 2**-7
    for unpacked, given_, dim in ((found_keys, keys, 2), (found_values, values, 3)):
        assert unpacked.dtype == dtype
        greatest = given_.abs().amax(dim=dim, keepdim=True).float()
        step = greatest / 127
        assert bool(((unpacked.float() - given_.float()).abs() <= 0.501 * step + rounding * greatest + 1e-30).all())


def test_a_prefix_takes_a_quarter_of_float32s_memory_and_answers_nearly_the_same(
    model: LanguageModel, vocabulary: Vocabulary, tmp_path: Path
):
    engine = Driven(model, vocabulary, tmp_path)
    small = Driven(model, vocabulary, tmp_path, eight_bits=True)
    scoring = LabelScoring(
        adapter=None, prompt=(*KEY.tokens, 10, 11), prefix_tokens=300, labels=((5, 6), (7,), (8, 9, 10))
    )
    for _ in range(2):  # just compiled, and kept
        found, exact = small.scores(scoring), engine.scores(scoring)
        assert found.scores == pytest.approx(exact.scores, abs=0.3)
        assert found.scores != exact.scores
    assert small.prefixes.size_bytes < 0.3 * engine.prefixes.size_bytes


def test_budget_memory_and_disk_hold_what_is_kept(model: LanguageModel, tmp_path: Path):
    prefix = compile_prefix(TunedModel(model), KEY.tokens)
    files = PrefixFiles(tmp_path, 1 << 22, "base", model.device)
    store = PrefixStore(prefix.size_bytes, files, eight_bits=True)
    assert store.set_aside(prefix.size_bytes)
    kept = store.put(KEY, prefix)
    assert store.size_bytes == kept.size_bytes < prefix.size_bytes
    files.close()
    again = PrefixStore(prefix.size_bytes, PrefixFiles(tmp_path, 1 << 22, "base", model.device), eight_bits=True)
    read = found(again, KEY)
    assert read is not None and again.size_bytes == kept.size_bytes
    for one, other in zip(read.layers, kept.layers, strict=True):
        assert all(torch.equal(part, expected) for part, expected in zip(one, other, strict=True))
