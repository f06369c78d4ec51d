import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import torch
from openai import OpenAI
from openai._legacy_response import HttpxBinaryResponseContent
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from manyicl_core.method.encoding import template_hash
from tests.services import BASE_MODEL, on_both_stores
from tests.tuned_model import add_tuned_model

TOKENS = torch.arange(5, 25)[None]


def download(client: OpenAI, model: str, name: str) -> HttpxBinaryResponseContent:
    return client.get(f"/models/{model}/artifacts/{name}", cast_to=HttpxBinaryResponseContent)


def unzipped(content: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return cast(torch.Tensor, model(TOKENS).logits)


@on_both_stores
def test_every_download_of_a_model_answers_the_same(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    model = add_tuned_model(client, tiny_model, adapter)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(base, str(adapter)))

    listed: Any = client.get(f"/models/{model}/artifacts", cast_to=object)
    names = [artifact["id"] for artifact in listed["data"]]
    assert names == ["adapter.safetensors", "adapter.zip", "model.safetensors", "model.zip", "README.md"]
    answers = {name: download(client, model, name) for name in names}
    for name in ("adapter.safetensors", "model.safetensors", "README.md"):
        assert int(answers[name].response.headers["content-length"]) == len(answers[name].content)
    assert answers["adapter.safetensors"].content == (adapter / "adapter_model.safetensors").read_bytes()

    peft = unzipped(answers["adapter.zip"].content, tmp_path / "peft")
    fresh = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(fresh, str(peft))), expected)
    whole = unzipped(answers["model.zip"].content, tmp_path / "whole")
    assert (whole / "model.safetensors").read_bytes() == answers["model.safetensors"].content
    merged = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    for folder in (peft, whole):
        assert AutoTokenizer.from_pretrained(folder).chat_template
        assert template_hash() in (folder / "manyicl.json").read_text(encoding="utf-8")
        assert (folder / "README.md").read_bytes() == answers["README.md"].content


def test_the_model_card_tells_data_hyperparameters_and_licence(
    client: OpenAI, tiny_model: Path, tmp_path: Path
) -> None:
    card = download(client, add_tuned_model(client, tiny_model, tmp_path / "adapter"), "README.md").text
    assert card.startswith('---\nbase_model: "tests/tiny-llama"\nlibrary_name: peft\n')
    for line in (
        "| colour | train | accuracy | Name the colour. | red; blue | 12 | 0 |",
        "| parity | heldout | accuracy |  | odd; even | 12 | 0 |",
        "| seed | 7 |",
        "| n_epochs | 2 |",
        "| objective | many_icl |",
        "Licence of the base model: not stated here",
        'python predict.py --task colour "',
        "Name the colour.\n\nInput: the first input\nOutput: red\n\nInput: the second input\nOutput: blue\n\nInput: ",
        "are examples of the training file",
        "The job measured nothing",
    ):
        assert line in card


def test_a_downloaded_folder_is_enough_to_ask_the_model(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    """`predict.py` runs without the service, and says what the service says."""
    model = add_tuned_model(client, tiny_model, tmp_path / "weights")
    folder = unzipped(download(client, model, "adapter.zip").content, tmp_path / "adapter")
    told = json.loads((folder / "manyicl.json").read_text(encoding="utf-8"))
    assert (told["base_model"], told["template_hash"]) == (BASE_MODEL, template_hash())
    assert told["example"] in (folder / "README.md").read_text(encoding="utf-8")
    colour, total, parity = told["tasks"]
    assert (colour["name"], colour["instruction"], colour["labels"]) == ("colour", "Name the colour.", ["red", "blue"])
    assert (total["labels"], parity["role"]) == (None, "heldout")
    assert len(colour["demonstrations"]) == 8
    assert {shown["output"] for shown in colour["demonstrations"][:2]} == {"red", "blue"}

    inputs = [f"thing {number}" for number in range(70, 76)]
    context = {"instruction": "Name the colour.", "labels": colour["labels"], "examples": colour["demonstrations"]}
    body = {"model": model, "input": inputs, "manyicl": {"context": context}}
    answer: Any = client.post("/classifications", body=body, cast_to=object)
    command = [sys.executable, folder / "predict.py", "--base", tiny_model, "--task", "colour", *inputs]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [entry["label"] for entry in answer["data"]]


def test_what_is_no_artifact_of_an_own_model_is_not_found(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    model = add_tuned_model(client, tiny_model, tmp_path / "adapter")
    with pytest.raises(openai.NotFoundError, match=r"its artifacts are adapter\.safetensors, "):
        download(client, model, "adapter.bin")
    for missing in ("tests/tiny-llama", "ft:missing"):
        with pytest.raises(openai.NotFoundError):
            download(client, missing, "README.md")
