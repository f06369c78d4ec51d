"""Adapters of any ranks and layers share a pass, and each row is answered as by PEFT alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.inference.answer import Answer, Sampling
from manyicl_core.inference.decoding import Decoder, Row
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.lora_bank import UnsupportedAdapter
from manyicl_core.inference.prefix import EMPTY_PREFIX
from tests.unit.inference.conftest import load_tiny
from tests.unit.random_adapter import save_random_adapter

PROMPTS = [[30, 31, 32], [40], [50, 51, 52, 53, 54, 55], [60, 61]]
SPECS = {
    "all layers": LoraSpec(rank=4, alpha=8),
    "a high rank": LoraSpec(rank=17, alpha=4),
    "queries and values": LoraSpec(rank=2, alpha=16, target_modules=["q_proj", "v_proj"]),
    "the top": LoraSpec(rank=3, alpha=6, top_layers=1),
    "feed-forward": LoraSpec(rank=1, alpha=4, target_modules=["up_proj", "down_proj"]),
}


def save_peft_adapter(tiny_model: Path, folder: Path, **settings: object) -> Path:
    """An adapter that PEFT makes, with random weights."""
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **{"target_modules": "all-linear", **settings})  # type: ignore[arg-type]
    peft_model = get_peft_model(load_tiny(tiny_model), config)
    for name, parameter in peft_model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    peft_model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        name: save_random_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), seed, spec)
        for seed, (name, spec) in enumerate(SPECS.items())
    }
    made["rank-stabilised"] = save_peft_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), use_rslora=True)
    return made


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path], tiny_model: Path) -> dict[str | None, list[torch.Tensor]]:
    """By PEFT: of every prompt the log-probabilities of the next token."""
    models: dict[str | None, torch.nn.Module] = {None: load_tiny(tiny_model)}
    for name, folder in folders.items():
        models[name] = PeftModel.from_pretrained(load_tiny(tiny_model), str(folder)).eval()
    with torch.no_grad():
        return {
            name: [model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(dim=0) for prompt in PROMPTS]
            for name, model in models.items()
        }


def next_logprobs(model: LanguageModel, rows: list[tuple[str | None, list[int]]]) -> list[torch.Tensor]:
    """Of each row, the log-probabilities of all next tokens, from one pass over all rows."""
    vocabulary = model.vocabulary
    decoder = Decoder(model)
    answers = [Answer(Sampling(logprobs=vocabulary), 1, frozenset()) for _ in rows]
    for (adapter, prompt), answer in zip(rows, answers, strict=True):
        decoder.join(Row(adapter, EMPTY_PREFIX, list(prompt), answer))
    decoder.step()
    assert not decoder.rows
    found = []
    for answer in answers:
        [entry] = answer.logprobs
        tokens, values = zip(*sorted(entry.top), strict=True)
        assert tokens == tuple(range(vocabulary))
        found.append(torch.tensor(values))
    return found


def assert_as_peft(
    model: LanguageModel, expected: dict[str | None, list[torch.Tensor]], names: list[str | None]
) -> None:
    rows = [(name, index) for index in range(len(PROMPTS)) for name in names]
    found = next_logprobs(model, [(name, PROMPTS[index]) for name, index in rows])
    for (name, index), values in zip(rows, found, strict=True):
        torch.testing.assert_close(values, expected[name][index], rtol=1e-4, atol=2e-4)


def attached(tiny_model: Path, folders: dict[str, Path]) -> LanguageModel:
    model = LanguageModel(load_tiny(tiny_model))
    for name, folder in folders.items():
        model.attach(name, folder)
    return model


def test_adapters_of_different_ranks_and_layers_share_a_pass_with_the_base(tiny_model: Path, folders, expected):
    model = attached(tiny_model, folders)
    assert_as_peft(model, expected, [*folders, None])


@pytest.mark.parametrize("name", [*SPECS, "rank-stabilised"])
def test_one_adapter_alone_in_a_pass_is_exact_among_others(tiny_model: Path, folders, expected, name: str):
    model = attached(tiny_model, folders)
    assert_as_peft(model, expected, [name])
    assert_as_peft(model, expected, [name, None])


@pytest.mark.parametrize(
    "gone", [["all layers"], ["queries and values"], ["rank-stabilised"], ["a high rank", "the top"]]
)
def test_one_that_leaves_from_between_others_changes_none_of_them(tiny_model: Path, folders, expected, gone: list[str]):
    model = attached(tiny_model, folders)
    for name in gone:
        model.detach(name)
    stayed = [name for name in folders if name not in gone]
    assert_as_peft(model, expected, [*stayed, None])
    for name in gone:
        model.attach(name, folders[name])
    assert_as_peft(model, expected, [None, *folders])


def test_the_base_is_exact_before_during_and_after(tiny_model: Path, folders, expected):
    model = LanguageModel(load_tiny(tiny_model))
    before = next_logprobs(model, [(None, prompt) for prompt in PROMPTS])
    for name, folder in folders.items():
        model.attach(name, folder)
        assert all(map(torch.equal, next_logprobs(model, [(None, prompt) for prompt in PROMPTS]), before))
    for name in folders:
        model.detach(name)
    assert all(map(torch.equal, next_logprobs(model, [(None, prompt) for prompt in PROMPTS]), before))


@pytest.mark.parametrize("call", [1, 2, 7, 12])
@pytest.mark.parametrize("leaves", [False, True])
def test_where_memory_ends_half_way_all_is_as_it_was(
    tiny_model: Path, folders, expected, monkeypatch: pytest.MonkeyPatch, call: int, leaves: bool
):
    model = attached(tiny_model, {name: folders[name] for name in ("the top", "a high rank")})
    cat, calls = torch.cat, 0

    def fail(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("can't allocate memory")
        return cat(*arguments, **options)

    def change() -> None:
        if leaves:
            model.detach("the top")
        else:
            model.attach("all layers", folders["all layers"])

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", fail)
        with pytest.raises(RuntimeError, match="allocate"):
            change()
    assert_as_peft(model, expected, ["the top", "a high rank", None])
    change()
    assert_as_peft(model, expected, ["a high rank", None] if leaves else ["all layers", "the top", "a high rank", None])


def edited(**changes: object) -> Callable[[Path, Path], None]:
    """An adapter that says something else of itself."""

    def write(source: Path, folder: Path) -> None:
        config = json.loads((source / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        save_file(load_file(source / "adapter_model.safetensors"), folder / "adapter_model.safetensors")

    return write


def reshaped(source: Path, folder: Path) -> None:
    """An adapter of another base, with layers of the same names."""
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules="all-linear")).save_pretrained(str(folder))


def deeper(source: Path, folder: Path) -> None:
    """An adapter of a base with more layers."""
    edited()(source, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    more = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in tensors.items()}
    save_file(more, folder / "adapter_model.safetensors")


def with_more_weights(source: Path, folder: Path) -> None:
    edited()(source, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.norm.weight"] = torch.ones(64)
    save_file(tensors, folder / "adapter_model.safetensors")


def without_weights(source: Path, folder: Path) -> None:
    edited()(source, folder)
    save_file({}, folder / "adapter_model.safetensors")


def without_one_half(source: Path, folder: Path) -> None:
    edited()(source, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[next(name for name in tensors if "lora_B" in name)]
    save_file(tensors, folder / "adapter_model.safetensors")


def of_the_head(source: Path, folder: Path) -> None:
    """An adapter of the output layer, which answers are not computed through as of the others."""
    edited()(source, folder)
    tensors = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(4, 64),
        "base_model.model.lm_head.lora_B.weight": torch.ones(384, 4),
    }
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "write",
    [
        edited(peft_type="LOHA"),
        edited(bias="lora_only"),
        edited(use_dora=True),
        edited(rank_pattern={"q_proj": 2}),
        edited(alpha_pattern={"q_proj": 2}),
        reshaped,
        deeper,
        with_more_weights,
        without_weights,
        without_one_half,
        of_the_head,
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused_and_leaves_all_as_it_was(
    tiny_model: Path, folders, expected, tmp_path: Path, write: Callable[[Path, Path], None]
):
    model = attached(tiny_model, {"the top": folders["the top"]})
    write(folders["all layers"], tmp_path)
    with pytest.raises(UnsupportedAdapter):
        model.attach("bad", tmp_path)
    assert not model.attached("bad")
    model.attach("a high rank", folders["a high rank"])
    assert_as_peft(model, expected, ["a high rank", "the top", None])
