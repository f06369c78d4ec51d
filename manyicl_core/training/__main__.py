"""Train one job: ``python -m manyicl_core.training FOLDER``.

``FOLDER/spec.json`` says what; ``FOLDER/checkpoint``, where it exists, is gone on from, and
``FOLDER/best`` is then the checkpoint with the best validation loss, where that is another one.
Progress is written to standard output, one JSON object a line; checkpoints and the trained weights
to ``FOLDER``.
"""

import sys
from pathlib import Path

from manyicl_core.job_process import run_reporting, wait_passively

wait_passively()

from manyicl_core.contract.train_spec import TrainSpec  # noqa: E402
from manyicl_core.training.trainer import train  # noqa: E402


def main(folder: Path) -> int:
    """Run the trainer over ``folder``."""
    spec = TrainSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    checkpoint, best = (path if path.exists() else None for path in (folder / "checkpoint", folder / "best"))
    return run_reporting(train(spec, folder, checkpoint, best))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
