"""An api behind an engine with a tiny random model, and no worker: for benchmarks that send it everything there is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.api_process import Api, running_api
from benchmarks.engine_under_load import running_engine
from manyicl_core.settings import get_settings
from tests.tiny_model import make_tiny_model

TINY_MODEL = "tests/tiny-llama"


@contextmanager
def running_installation(folder: Path) -> Iterator[Api]:
    """Start everything in ``folder``; what is queued stays queued."""
    model = {"base_model": TINY_MODEL, "model_folder": str(make_tiny_model(folder / "model"))}
    os.environ |= {f"MANYICL_{name.upper()}": value for name, value in model.items()}
    get_settings.cache_clear()
    with running_engine(folder) as engine_url, running_api(folder, engine_url, model) as api:
        yield api


def stored_files(folder: Path) -> set[str]:
    """The names of all artifacts of an installation in ``folder``."""
    artifacts = folder / "artifacts"
    return {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
