"""Start and stop child processes that never outlive their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_TRIES = 20


_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it dies; Linux only."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    command: list[str],
    environment: dict[str, str],
    stdout: int | IO[str] | None = None,
    stderr: IO[str] | None = None,
    user: int | None = None,
    folder: Path | None = None,
    nice: int = 0,
) -> subprocess.Popen[str]:
    """Start ``command`` in a process group of its own.

    The kernel kills it when the thread that called this dies, so call it from a thread that
    lives as long as the child should. ``user`` drops root's rights to that uid. ``nice`` is how far
    it steps back where others want the processor, up to 19.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
        cwd=folder,
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        # One system call and no lock: safe between fork and exec, also with threads.
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    if nice:
        _step_back(process.pid, nice)
    return process


def _step_back(pid: int, nice: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    # Where the kernel shares the processor among sessions (sched(7), autogroup), nice counts within one only.
    group = Path(f"/proc/{pid}/autogroup")
    for _ in range(_TRIES):
        try:
            group.write_text(str(nice), encoding="utf-8")
        except BlockingIOError:  # without root's rights it takes ten changes a second, of all processes together
            time.sleep(0.1)
        except OSError:  # it has no such groups, or the process has ended
            return
        else:
            return


def stop(process: subprocess.Popen[str], grace_seconds: float, first: signal.Signals = signal.SIGTERM) -> None:
    """Ask the whole group to end, and kill it when the grace is over."""
    _signal_group(process, first)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[str], signal_: signal.Signals) -> None:
    try:
        os.killpg(process.pid, signal_)
    except (ProcessLookupError, PermissionError):
        return


def passive_threads(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` with OpenMP threads that sleep while they wait.

    Without it an engine decodes five times slower beside a trainer on the same cores.
    """
    return {**environment, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def job_environment(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` for a process that computes for one job and ends: a trainer, an evaluation.

    Its threads wait passively, and the C library keeps freed memory for the next tensor instead of
    giving it back and faulting it in again, page by page: a training step is 12 % faster. Not for
    processes that stay, whose memory would only grow.
    """
    return {
        **passive_threads(environment),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    }


def engine_environment(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` for the engine: threads that wait awake for a moment only, and some freed memory kept.

    A step is a thousand short operations. Threads that sleep between any two take 1.6 times as
    long for a single answer. They may be awake for this long as trainers step back (``job_nice``);
    beside a process that does not, they wait for each other, a single answer six times as long
    (docs/decisions/0021).

    Memory is kept as for a job, but bounded, as the engine stays: a context is compiled in a fifth
    less time. All threads share it: in an arena each they would keep it each. oneDNN keeps the code
    of so many products of so many sizes, 0.6 MB each, and makes a new one in half a millisecond; by
    itself it keeps 1,024.
    """
    return {
        **passive_threads(environment),
        "GOMP_SPINCOUNT": environment.get("GOMP_SPINCOUNT", "10000"),
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    }
