"""What processes that compute share: how they import torch, and how those of a job report and fail with a code."""

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from manyicl_core.contract.progress import Failed, Message, report
from manyicl_core.errors import in_its_own_words

FailureCode = Literal["out_of_memory", "disk_full", "invalid_data", "engine_error"]


@contextmanager
def importing_torch() -> Iterator[None]:
    """Around the imports of a process that computes: its OpenMP threads will sleep while they wait.

    The garbage collector leaves alone what the libraries make and keep. It would look through those
    hundred thousands of objects again and again while they are made, and once more when the process
    ends: a third of the time of starting and ending.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are for terminals; here they would go into a log
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def reporting_failed_imports() -> Iterator[None]:
    """Around the imports of a job's process: one that fails is told before it ends the process."""
    try:
        yield
    except Exception as error:
        report(_failed(error), sys.stdout)
        raise


def run_reporting(messages: Iterable[Message]) -> int:
    """Report every message on standard output; an exception becomes a ``failed`` message.

    Whatever else prints to standard output goes to standard error meanwhile, so that no library
    can spoil the progress lines. Returns the exit status.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        try:
            return _report_all(messages, stream)
        finally:
            os.dup2(stream.fileno(), 1)


def _report_all(messages: Iterable[Message], stream: TextIO) -> int:
    try:
        for message in messages:
            report(message, stream)
    except Exception as error:
        report(_failed(error), stream)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _failed(error: Exception) -> Failed:
    code, advice = _explain(error)
    return Failed(code=code, message=f"{advice} ({in_its_own_words(error)})")


def _explain(error: Exception) -> tuple[FailureCode, str]:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return "out_of_memory", "Memory ran out; lower manyicl.max_sequence_tokens or the batch size"
    if "No space left" in str(error):
        return "disk_full", "The disk is full; free some space and start the job again"
    if isinstance(error, ImportError) and "bitsandbytes" in str(error):
        return "invalid_data", (
            "manyicl.lora.quantize_base needs bitsandbytes, which this worker lacks; run "
            "`pip install 'manyicl[qlora]'` there, or create the job without it"
        )
    return "engine_error", "The process failed; its log on the worker holds the whole story"
