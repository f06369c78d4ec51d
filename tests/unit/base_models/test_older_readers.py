"""What a model's files say to transformers 4, they still say to this one."""

import json
from pathlib import Path

from hypothesis import given
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

from manyicl_core.base_models.older_readers import readable_by_all
from tests.unit.sample_tasks import texts


def rewrite(folder: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(readable_by_all(path.name, path.read_bytes()))
    return target


def test_rotary_positions_are_told_in_both_forms(tmp_path: Path):
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}
    LlamaConfig(rope_parameters=scaled, dtype="bfloat16").save_pretrained(tmp_path / "old")
    both = json.loads((rewrite(tmp_path / "old", tmp_path / "new") / "config.json").read_text())
    assert (both["rope_theta"], both["torch_dtype"]) == (5e5, "bfloat16")
    assert both["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    config = AutoConfig.from_pretrained(tmp_path / "new")
    assert config.rope_parameters == AutoConfig.from_pretrained(tmp_path / "old").rope_parameters
    assert config.dtype == AutoConfig.from_pretrained(tmp_path / "old").dtype


def test_what_says_nothing_of_that_stays(tmp_path: Path):
    config = b'{"rope_theta": 7.0, "torch_dtype": "float16"}'
    assert json.loads(readable_by_all("config.json", config)) == json.loads(config)
    assert readable_by_all("vocab.json", b"any bytes") == b"any bytes"
    spaced = {"model": {"merges": [["a b", "c"]]}}
    assert json.loads(readable_by_all("tokenizer.json", json.dumps(spaced).encode())) == spaced


@given(texts)
def test_a_tokenizer_says_the_same_in_the_older_form(tiny_model: Path, text: str):
    content = (tiny_model / "tokenizer.json").read_bytes()
    older = readable_by_all("tokenizer.json", content)
    assert all(isinstance(merge, str) for merge in json.loads(older)["model"]["merges"])
    assert Tokenizer.from_str(older.decode()).encode(text).ids == Tokenizer.from_str(content.decode()).encode(text).ids


def test_a_tokenizers_class_is_one_that_all_know(tiny_model: Path, tmp_path: Path):
    folder = rewrite(tiny_model, tmp_path)
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    own, older = AutoTokenizer.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(folder)
    assert older.encode("Input: a <|im_end|>") == own.encode("Input: a <|im_end|>")
    assert older.chat_template == own.chat_template
