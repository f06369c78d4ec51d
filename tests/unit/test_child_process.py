"""Children end when they are stopped, and with their parent."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from manyicl_core.child_process import engine_environment, job_environment, passive_threads, spawn, stop

# Says "ready" when it is set up, then waits for a signal for ever.
_WAITS = "import signal; print('ready', flush=True); signal.pause()"
_WAITS_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _WAITS.removeprefix("import signal; ")
_WITH_GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_WAITS_DEAF!r}])"

# Takes, fills and frees 20 MB again and again; prints how many pages were faulted in.
_ALLOCATES = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(20):
    block = ctypes.c_void_p(libc.malloc(20_000_000))
    ctypes.memset(block, 1, 20_000_000)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def started(code: str) -> subprocess.Popen[str]:
    """A Python process that has said that it is ready."""
    process = spawn([sys.executable, "-c", code], dict(os.environ), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_child_has_the_output_environment_and_folder_it_is_given(tmp_path: Path):
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['WORD'], os.getcwd(), repr(sys.stdin.read())); print('x', file=sys.stderr)"
    with log.open("w", encoding="utf-8") as output:
        process = spawn([sys.executable, "-c", code], {"WORD": "hello"}, output, output, folder=tmp_path)
    assert process.wait() == 0
    assert sorted(log.read_text().splitlines()) == sorted([f"hello {tmp_path} ''", "x"])


def test_a_child_that_heeds_the_signal_ends_by_it():
    process = started(_WAITS)
    stop(process, grace_seconds=60)
    assert process.returncode == -signal.SIGTERM
    process.communicate()


def test_the_first_signal_can_be_another():
    process = started(_WAITS)
    stop(process, grace_seconds=60, first=signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    process.communicate()


def test_a_child_that_ignores_the_signal_is_killed():
    process = started(_WAITS_DEAF)
    stop(process, grace_seconds=0.01)
    assert process.returncode == -signal.SIGKILL
    process.communicate()


def test_stopping_ends_the_whole_group():
    process = started(_WITH_GRANDCHILD)
    stop(process, grace_seconds=60)
    assert process.returncode == -signal.SIGTERM
    # The deaf grandchild holds the same pipe: its end is reached only when both are gone.
    assert process.communicate() == ("", None)


def test_stopping_a_child_that_has_ended_keeps_its_status():
    process = spawn([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))
    process.wait()
    stop(process, grace_seconds=60)
    assert process.returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_child_dies_with_the_thread_that_started_it():
    processes: list[subprocess.Popen[str]] = []
    thread = threading.Thread(target=lambda: processes.append(started(_WAITS_DEAF)))
    thread.start()
    thread.join()
    [process] = processes
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="groups of sessions are Linux's")
def test_a_nice_child_steps_back_within_its_session_and_as_a_session():
    code = """
import os, pathlib, time
group = pathlib.Path("/proc/self/autogroup")
while os.nice(0) != 7 or (group.exists() and group.read_text().split()[-1] != "7"):
    time.sleep(0.01)
"""
    assert spawn([sys.executable, "-c", code], dict(os.environ), nice=7).wait(60) == 0


@pytest.mark.parametrize(("make", "awake"), [(job_environment, 0), (engine_environment, 10_000)])
def test_a_process_that_computes_keeps_its_memory_and_waits_passively(make: Callable[..., dict[str, str]], awake: int):
    environment = make({"PATH": "/bin"})
    assert environment.items() > {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE"}.items()
    assert int(environment["GOMP_SPINCOUNT"]) <= awake, "threads that wait awake take others' cores"
    faults = [
        int(subprocess.run([sys.executable, "-c", _ALLOCATES], env=each, capture_output=True, check=True).stdout)
        for each in (environment, {"PATH": "/bin"})
    ]
    assert faults[0] < 0.75 * faults[1]


def test_who_has_the_machine_for_the_engine_alone_may_keep_its_threads_awake():
    assert engine_environment({"GOMP_SPINCOUNT": "20000"})["GOMP_SPINCOUNT"] == "20000"


def test_threads_are_told_to_sleep_while_they_wait():
    environment = {"PATH": "/bin"}
    assert passive_threads(environment) == {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    assert environment == {"PATH": "/bin"}
