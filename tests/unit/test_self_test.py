"""A base model passes when we compute of it what transformers computes; of others the part is named that differs."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig

from manyicl_core.base_models.shape import longest_sequence, read_config
from manyicl_core.self_test import excerpt
from manyicl_core.self_test.excerpt import excerpt_config
from manyicl_core.self_test.verdict import reason_against
from tests.architectures import ARCHITECTURES, Architecture, make_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' own models warn of each other
    pytest.mark.filterwarnings("ignore:The following:RuntimeWarning"),  # PEFT of experts
    pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_computed_right_or_refused_by_the_name_of_its_part(name: str, tmp_path: Path):
    architecture = ARCHITECTURES[name]
    reason = reason_against(make_model(architecture, tmp_path))
    if architecture.refused is None:
        assert reason is None
    else:
        assert reason is not None
        assert architecture.refused in reason


def without(*names: str):
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def with_settings(file: str, **settings: object):
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def with_one_token_more(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["parcelservice"])
    tokenizer.save(str(folder / "tokenizer.json"))


def with_cut_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)


def with_text_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")


def with_line_breaks_as_spaces(folder: Path) -> None:
    normalizer = {"type": "Replace", "pattern": {"String": "\n"}, "content": " "}
    with_settings("tokenizer.json", normalizer=normalizer)(folder)


def with_no_line_break(folder: Path) -> None:
    with_settings("tokenizer.json", normalizer={"type": "Strip", "strip_left": True, "strip_right": True})(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("tokenizer.json"), "no tokenizer.json"),
        (without("tokenizer_config.json"), "no tokenizer_config.json"),
        (with_settings("tokenizer_config.json", eos_token=None), "eos_token"),
        (with_line_breaks_as_spaces, "does not know line breaks"),
        (with_no_line_break, "does not know line breaks"),
        (with_settings("config.json", vocab_size=300), "other sizes than its config.json says"),
        (with_one_token_more, "has 385 tokens and the model knows 384"),
        (with_settings("config.json", model_type="my-own"), "cannot read its config.json"),
        (with_settings("config.json", num_hidden_layers=3), "no weights of model.layers.2."),
        (with_settings("config.json", head_dim=32), "other sizes"),
        (with_cut_weights, "ends before its tensor"),
        (with_text_for_weights, "no safetensors file"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(change, words: str, tiny_model: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    change(folder)
    reason = reason_against(folder)
    assert reason is not None
    assert words in reason


def test_a_control_token_that_the_model_does_not_know_does_no_harm(tiny_model: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert reason_against(folder) is None


def test_of_a_large_model_so_many_layers_are_compared_that_every_kind_is_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(excerpt, "_WHOLE_NUMBERS", 1000)
    alike = make_model(Architecture("llama", layers=5), tmp_path / "alike")
    assert excerpt_config(alike).num_hidden_layers == 2
    assert reason_against(alike) is None
    # Every fourth layer of SmolLM3 has no positions.
    kinds = make_model(Architecture("smollm3", layers=9), tmp_path / "kinds")
    assert excerpt_config(kinds).no_rope_layers == [1, 1, 1, 0]
    assert reason_against(kinds) is None
    # The first layers of DeepSeek have no experts; and what differs is found in them, too.
    experts = make_model(ARCHITECTURES["deepseek-v3"], tmp_path / "experts")
    assert "kv_lora_rank" in str(reason_against(experts))
    granite = make_model(replace(ARCHITECTURES["granite"], layers=6), tmp_path / "granite")
    assert "logits_scaling" in str(reason_against(granite))


def test_positions_are_counted_up_to_where_longrope_turns_all_others_too(tmp_path: Path):
    folder = make_model(ARCHITECTURES["phi4-mini-full"], tmp_path)
    assert longest_sequence(read_config(folder)) == 512
    assert longest_sequence(AutoConfig.from_pretrained(folder).to_dict()) == 512
