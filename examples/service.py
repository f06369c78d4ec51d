"""Start ``manyicl up`` from a program, and learn where it is."""

import json
import subprocess
import sys
import time
from pathlib import Path

from manyicl_core.embedded import free_port


class ServiceDidNotStart(RuntimeError):
    """``manyicl up`` ended; it has said why."""


def start_service(folder: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """Start it on ``folder`` and a free port; wait until it has written ``connection.json``.

    Raises:
        ServiceDidNotStart: it ended before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "connection.json"
    before = file.stat().st_mtime_ns if file.exists() else None
    command = [
        sys.executable,
        "-m",
        "manyicl_core.cli.main",
        "up",
        "--data-dir",
        str(folder),
        "--port",
        str(free_port()),
    ]
    service = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    while not file.exists() or file.stat().st_mtime_ns == before:
        if service.poll() is not None:
            raise ServiceDidNotStart(f"the service did not start; another one may still run on {folder}")
        time.sleep(0.1)
    return service, json.loads(file.read_text(encoding="utf-8"))
