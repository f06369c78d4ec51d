"""Watch over child processes: start them in order, restart what dies, stop them in reverse."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from manyicl_core.child_process import stop

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_PROVEN_SECONDS = 60.0


@dataclass
class Service:
    """One child.

    Attributes:
        start: starts it.
        ready: whether it can be used.
        stop_signal: what it is asked to end with, and how long it gets.
    """

    name: str
    start: Callable[[], subprocess.Popen[str]]
    ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    pause: float = field(default=_FIRST_PAUSE)


class ServiceDidNotStart(RuntimeError):
    """A child ended, or did not get ready in time, at first start."""


class Services:
    """The children of ``manyicl up``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._services: list[Service] = []
        self._say = say

    def start(self, service: Service) -> None:
        """Start one; from now on it is watched."""
        self._services.append(service)
        _launch(service)

    def await_ready(self, service: Service, seconds: float, stopping: Callable[[], bool]) -> None:
        """Wait until it can be used.

        Raises:
            ServiceDidNotStart: it ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not service.ready():
            assert service.process is not None
            if stopping():
                return
            if (status := service.process.poll()) is not None:
                raise ServiceDidNotStart(f"{service.name} ended with status {status}")
            if time.monotonic() > deadline:
                raise ServiceDidNotStart(f"{service.name} was not ready after {seconds:.0f} seconds")
            time.sleep(0.1)

    def restart_dead(self) -> None:
        """Look once: note who died, and restart whose pause is over."""
        now = time.monotonic()
        for service in self._services:
            assert service.process is not None
            if service.restart_at is None:
                if (status := service.process.poll()) is None:
                    continue
                # Children of the dead one must not go on beside its successor.
                stop(service.process, 0.0)
                if now - service.started_at > _PROVEN_SECONDS:
                    service.pause = _FIRST_PAUSE
                self._say(f"{service.name} ended with status {status}; starting it again in {service.pause:.1f} s")
                service.restart_at = now + service.pause
                service.pause = min(service.pause * 2, _LONGEST_PAUSE)
            elif now >= service.restart_at:
                _launch(service)

    def stop_all(self) -> None:
        """Stop everything, last started first."""
        while self._services:
            service = self._services.pop()
            assert service.process is not None
            stop(service.process, service.grace_seconds, service.stop_signal)


def _launch(service: Service) -> None:
    service.process = service.start()
    service.started_at = time.monotonic()
    service.restart_at = None
