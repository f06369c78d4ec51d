"""Check a base model: ``python -m manyicl_core.self_test FOLDER``; the verdict is one line of JSON."""

import json
import sys
import time
from pathlib import Path

from manyicl_core.job_process import importing_torch

with importing_torch():
    import torch
    from transformers.utils import logging

    from manyicl_core.base_models.check import Verdict
    from manyicl_core.self_test.verdict import reason_against
    from manyicl_core.settings import get_settings


def main(folder: Path) -> None:
    """Print the verdict."""
    began = time.monotonic()
    torch.set_num_threads(get_settings().threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    reason = reason_against(folder)
    verdict = Verdict(
        model_type=str(model_type or "unknown"), reason=reason, seconds=round(time.monotonic() - began, 1)
    )
    sys.stdout.write(verdict.model_dump_json() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
