"""Train one job: ``python -m manyicl_core.training FOLDER``.

``FOLDER/spec.json`` says what; ``FOLDER/checkpoint``, where it exists, is gone on from, and
``FOLDER/best`` is then the checkpoint with the best validation loss, where that is another one.
Progress is written to standard output, one JSON object a line; checkpoints and the trained weights
to ``FOLDER``. SIGTERM ends it after the step that it is in, with a checkpoint.

``python -m torch.distributed.run --standalone --nproc-per-node=N -m manyicl_core.training FOLDER``
trains the same job in N processes. The first one reports; the others only that they fail.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from manyicl_core.child_process import die_with_parent
from manyicl_core.job_process import importing_torch, reporting_failed_imports, run_reporting

with importing_torch(), reporting_failed_imports():
    from torch.distributed import DistError

    from manyicl_core.contract.progress import Message, Started, Trained
    from manyicl_core.contract.train_spec import TrainSpec
    from manyicl_core.training.trainer import train


def main(folder: Path) -> int:
    """Run the trainer over ``folder``."""
    return run_reporting(_of_this_process(_train(folder)))


def _train(folder: Path) -> Iterator[Message]:
    spec = TrainSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    checkpoint, best = (path if path.exists() else None for path in (folder / "checkpoint", folder / "best"))
    asked_to_end = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    try:
        for message in train(spec, folder, checkpoint, best, asked_to_end.is_set):
            if isinstance(message, Started):  # until now there was nothing to save
                signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
            yield message
    finally:
        signal.signal(signal.SIGTERM, before)
    if not isinstance(message, Trained):
        sys.exit("asked to end; the last checkpoint holds all that is done")


def _of_this_process(messages: Iterable[Message]) -> Iterator[Message]:
    """All messages of a job's first process, none of its others'.

    When another process dies, this one ends without a word: what failed is not the job, and it can
    go on from its last checkpoint.
    """
    try:
        for message in messages:
            if os.environ.get("RANK", "0") == "0":
                yield message
    except RuntimeError as error:
        if not isinstance(error, DistError) and "by peer" not in str(error):  # so gloo says it
            raise
        sys.exit(f"another process of the job is gone: {error}")


if __name__ == "__main__":
    if "RANK" in os.environ:
        die_with_parent()  # the launcher starts every process in a session of its own
    sys.exit(main(Path(sys.argv[1])))
