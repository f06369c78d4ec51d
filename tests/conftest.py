"""Fixtures for every test."""

import gc
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

pytest_plugins = ["tests.s3_server", "tests.services"]

# What the imported libraries make stays: the collector need not look through it, not once.
gc.disable()

# The same examples in every run, and no database of failures: a test fails for everybody or for nobody.
settings.register_profile("manyicl", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("manyicl")

# As in service: the default tracebacks draw every local variable, which takes seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_sessionstart() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama with its tokenizer; read only."""
    from tests.tiny_model import make_tiny_model  # noqa: PLC0415 - tests without it do not wait for torch

    return make_tiny_model(tmp_path_factory.mktemp("model"))
