"""Scratch space of one process each: held while it lives, cleared by the next one when it was killed."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "process-"
_HELD = "held"


def hold_scratch(root: Path) -> Path:
    """Return a new folder below ``root`` that belongs to this process until it ends, however that happens.

    A lock on a file in it says that its process lives. The kernel lets go of the lock with the process, and the
    lock stays with it across ``exec``. Folders that nobody holds any more are removed first; several containers
    may share ``root``, as long as one kernel sees to its locks.
    """
    root.mkdir(parents=True, exist_ok=True)
    # One at a time: a folder must not be taken for left behind between being made and being held.
    with (root / "lock").open("a", encoding="utf-8") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for folder in root.glob(f"{_PREFIX}*"):
            _remove_if_left(folder)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=_PREFIX))
        held = os.open(folder / _HELD, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        os.set_inheritable(held, True)  # to be held by what this process turns into
    return folder


def _remove_if_left(folder: Path) -> None:
    try:
        held = (folder / _HELD).open("rb")
    except FileNotFoundError:  # its maker died in between
        shutil.rmtree(folder, ignore_errors=True)
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)
