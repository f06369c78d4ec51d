"""The documents say what the code does."""

import re
from pathlib import Path

from api.app import create_app
from manyicl_core.answers.chat_request import CreateChatCompletion
from manyicl_core.answers.classifications import CreateClassification
from manyicl_core.answers.completion_request import CreateCompletion
from manyicl_core.answers.response_request import CreateResponse
from manyicl_core.settings import Settings
from manyicl_core.store.batches.schemas import CreateBatch
from manyicl_core.store.contexts.context_object import ContextObject, SelectedObject, TriedObject
from manyicl_core.store.contexts.options import CreateContext
from manyicl_core.store.contexts.schemas import ManyiclChat
from manyicl_core.store.evaluations.options import CreateEvaluation
from manyicl_core.store.evaluations.schemas import ComparisonObject, ResultObject
from manyicl_core.store.jobs.options import LoraOptions, ManyiclOptions, OptimizerOptions, ValidationOptions

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`(MANYICL_[A-Z_]+)`", API))
    assert documented == {f"MANYICL_{name.upper()}" for name in Settings.model_fields}


def test_every_option_is_documented() -> None:
    options = (ManyiclOptions, LoraOptions, OptimizerOptions, ValidationOptions, CreateEvaluation)
    hosting = (
        CreateClassification,
        CreateCompletion,
        CreateChatCompletion,
        CreateResponse,
        CreateBatch,
        CreateContext,
        ContextObject,
        SelectedObject,
        TriedObject,
        ManyiclChat,
    )
    for model in (*options, *hosting, ResultObject, ComparisonObject):
        assert {name for name in model.model_fields if f"`{name}`" not in API} == set()


def test_every_route_is_documented() -> None:
    paths = create_app().openapi()["paths"]
    assert paths
    for path, methods in paths.items():
        for method in methods:
            line = f"`{method.upper()} {re.sub(r'{.*?}', '{id}', path)}`"
            assert line in API, f"docs/api.md lacks {line}"


def test_every_make_command_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


def test_every_folder_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:api|worker|manyicl_core|docs|examples|docker)/[\w/]*)`", readme):
        assert (ROOT / name).is_dir(), name
