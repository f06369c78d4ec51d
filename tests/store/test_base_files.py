"""An id of a base model goes on meaning the files that were there when something was made on it."""

from pathlib import Path

import pytest
from openai import OpenAI

from manyicl_core.store.models.base_files import OtherFiles, hold_base_model
from manyicl_core.store.session import transaction
from tests.jobs import create_job
from tests.services import BASE_MODEL
from tests.tiny_model import make_tiny_model


def hold(base_model: str, folder: Path) -> None:
    with transaction() as session:
        hold_base_model(session, base_model, folder)


def test_files_may_change_until_something_is_made_on_them(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", hidden_size=32)
    hold("nobody/uses", tiny_model)
    hold("nobody/uses", other)

    hold(BASE_MODEL, tiny_model)
    job = create_job(client, evaluate=False)
    with pytest.raises(OtherFiles, match="holds other files than tests/tiny-llama had"):
        hold(BASE_MODEL, other)
    hold(BASE_MODEL, tiny_model)
    client.fine_tuning.jobs.cancel(job.id)


def test_another_tokenizer_makes_other_files(client: OpenAI, tiny_model: Path, tmp_path: Path) -> None:
    same = make_tiny_model(tmp_path / "same")
    hold(BASE_MODEL, tiny_model)
    job = create_job(client, evaluate=False)
    hold(BASE_MODEL, same)
    tokenizer = same / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(OtherFiles, match="MANYICL_BASE_MODEL"):
        hold(BASE_MODEL, same)
    client.fine_tuning.jobs.cancel(job.id)
