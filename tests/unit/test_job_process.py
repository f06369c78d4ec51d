"""A job's process tells why it cannot go on, in words for its user."""

import errno
import os
from collections.abc import Iterator

import pytest

from manyicl_core.contract.progress import CheckpointSaved, Failed, Message, parse
from manyicl_core.job_process import run_reporting

STEP = CheckpointSaved(step=1, folder="folder")


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which is told by its name: this module does not import torch."""


def told(capfd: pytest.CaptureFixture[str]) -> list[Message]:
    return [parse(line) for line in capfd.readouterr().out.splitlines()]


def test_all_messages_are_reported(capfd: pytest.CaptureFixture[str]):
    assert run_reporting([STEP, STEP]) == 0
    assert told(capfd) == [STEP, STEP]


def test_what_a_library_prints_does_not_spoil_the_messages(capfd: pytest.CaptureFixture[str]):
    def messages() -> Iterator[Message]:
        os.write(1, b"a library says hello\n")
        yield STEP

    assert run_reporting(messages()) == 0
    output = capfd.readouterr()
    assert [parse(line) for line in output.out.splitlines()] == [STEP]
    assert "a library says hello" in output.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("Error while serializing: No space left on device"), "disk_full"),
        (ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes"), "invalid_data"),
        (ImportError("no module named 'other'"), "engine_error"),
        (OSError(errno.EACCES, "Permission denied"), "engine_error"),
        (ValueError("checkpoint step-000002 was made with other settings"), "engine_error"),
    ],
)
def test_an_exception_ends_the_messages_with_a_failure_of_its_code(
    error: Exception, code: str, capfd: pytest.CaptureFixture[str]
):
    def messages() -> Iterator[Message]:
        yield STEP
        raise error

    assert run_reporting(messages()) == 1
    first, failed = told(capfd)
    assert first == STEP
    assert isinstance(failed, Failed)
    assert failed.code == code
    assert str(error) in failed.message
