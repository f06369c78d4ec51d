"""Serve the engine: ``python -m manyicl_core.inference``; settings come from the environment."""

import tempfile
from pathlib import Path

from manyicl_core.job_process import importing_torch

with importing_torch():
    import torch
    import uvicorn

    from manyicl_core.base_models.catalog import base_model_folder, known_base_models
    from manyicl_core.base_models.load import compute_device, compute_dtype, load_base_model
    from manyicl_core.inference.adapters import Adapters
    from manyicl_core.inference.engine import Engine
    from manyicl_core.inference.fingerprint import fingerprint
    from manyicl_core.inference.language_model import LanguageModel
    from manyicl_core.inference.prefix_files import PrefixFiles, base_name
    from manyicl_core.inference.prefix_store import PrefixStore
    from manyicl_core.inference.server import create_app
    from manyicl_core.inference.vocabulary import Vocabulary
    from manyicl_core.logging import configure_logging
    from manyicl_core.objects import open_store
    from manyicl_core.settings import get_settings, required

_KEEP_ALIVE_SECONDS = 75
"""Longer than any client keeps an idle connection: one that is taken up again must not be closing."""


def main() -> None:
    """Load the model and serve until stopped."""
    settings = get_settings()
    configure_logging("engine", settings.log_json)
    # Only the engine's thread computes in parallel: beside the idle threads of a second team,
    # OpenMP sends all to sleep between any two operations.
    torch.set_num_threads(1)
    entry = known_base_models()[0]
    folder = base_model_folder(entry)
    device = compute_device()
    model = LanguageModel(load_base_model(folder, device, compute_dtype(device)))
    vocabulary = Vocabulary(folder, model.vocabulary)
    store = open_store(required(settings, "storage_url"))
    files = None
    if settings.prefix_folder is not None:
        name = base_name(folder, model.dtype, settings.prefix_eight_bits)
        files = PrefixFiles(settings.prefix_folder, settings.prefix_disk_bytes, name, device)
    with tempfile.TemporaryDirectory(dir=settings.work_folder, prefix="manyicl-engine-") as scratch:
        adapters = Adapters(model, store, Path(scratch), settings.max_adapters)
        prefixes = PrefixStore(settings.prefix_cache_bytes, files, settings.prefix_eight_bits)
        engine = Engine(model, vocabulary, adapters, prefixes, settings.engine_rows)
        told = fingerprint(folder, model, settings)
        app = create_app(engine, vocabulary, entry.id, settings.engine_queue, settings.threads, told)
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.engine_port,
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        adapters.close()
        if files is not None:
            files.close()


if __name__ == "__main__":
    main()
