import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
import torch
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.jobs import await_state, create_job

StartWorker = Callable[[], subprocess.Popen[str]]


def downloaded(client: OpenAI, job: FineTuningJob, folder: Path) -> Path:
    """The job's weights, unpacked."""
    with zipfile.ZipFile(io.BytesIO(client.files.content(job.result_files[1]).read())) as archive:
        archive.extractall(folder)
    return folder


def ask(client: OpenAI, model: str) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "thing 1"}],
        extra_body={"manyicl": {"task": "colour", "max_shots": 4}},
    )


def test_a_job_goes_on_from_an_adapter_or_a_checkpoint(
    client: OpenAI, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    lora = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"], "top_layers": 1}
    first = await_state(client, create_job(client, evaluate=False, lora=lora).id, "succeeded", "failed")
    assert first.status == "succeeded", first.error
    model = str(first.fine_tuned_model)

    # A rate near zero leaves the weights where they were: those of the first job.
    second = create_job(client, evaluate=False, model=model, learning_rate_multiplier=1e-9)
    assert second.model == model
    assert second.model_extra is not None
    told = second.model_extra["manyicl"]["options"]["lora"]
    assert {name: told[name] for name in lora} == lora
    second = await_state(client, second.id, "succeeded", "failed")
    assert second.status == "succeeded", second.error
    before, after = (
        load_file(str(downloaded(client, job, tmp_path / job.id) / "adapter_model.safetensors"))
        for job in (first, second)
    )
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in before.items() if "lora_B" in name)

    for wrong, param in (
        ({"lora": {"rank": 8}}, "manyicl.lora.rank"),
        ({"lora": {"alpha": 9}}, "manyicl.lora.alpha"),
        ({"lora": {"target_modules": "all-linear"}}, "manyicl.lora.target_modules"),
        ({"adaptation": "full"}, "manyicl.adaptation"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create_job(client, evaluate=False, model=model, **wrong)  # type: ignore[arg-type]
        assert refused.value.param == param

    # A model deleted while a job waits to go on from it is not lost to that job.
    waiting = create_job(client, evaluate=False, model=str(second.fine_tuned_model))
    client.models.delete(str(second.fine_tuned_model))
    done = await_state(client, waiting.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    with pytest.raises(openai.NotFoundError):
        create_job(client, evaluate=False, model=str(second.fine_tuned_model))


def test_all_weights_are_trained_downloaded_served_and_gone_on_from(
    client: OpenAI, start_worker: StartWorker, tiny_model: Path, tmp_path: Path
) -> None:
    start_worker()
    job = await_state(client, create_job(client, adaptation="full").id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    model = str(job.fine_tuned_model)
    extra = client.models.retrieve(model).model_extra
    assert extra is not None and extra["adaptation"] == "full"

    folder = downloaded(client, job, tmp_path / "model")
    tuned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokens = torch.arange(5, 15)[None]
    with torch.inference_mode():
        assert (tuned(tokens).logits - base(tokens).logits).abs().max() > 1e-4

    # It answers, with a context of its own.
    assert ask(client, model).choices[0].message.content in ("red", "blue")
    cached = ask(client, model).usage
    assert cached is not None and cached.prompt_tokens_details is not None
    assert cached.prompt_tokens_details.cached_tokens

    again = await_state(client, create_job(client, evaluate=False, model=model).id, "succeeded", "failed")
    assert again.status == "succeeded", again.error
    for wrong, param in (({"lora": {"rank": 4}}, "manyicl.lora"), ({"adaptation": "lora"}, "manyicl.adaptation")):
        with pytest.raises(openai.BadRequestError) as refused:
            create_job(client, evaluate=False, model=model, **wrong)  # type: ignore[arg-type]
        assert refused.value.param == param
