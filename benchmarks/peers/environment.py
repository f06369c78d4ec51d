"""A peer's own environment: ``.bench/NAME``, made once, with torch and its kin as we have them."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / ".bench"


def peer_python(name: str, requirements: list[str], ours: list[str]) -> Path:
    """The interpreter of an environment with ``requirements``.

    Args:
        name: the environment's folder.
        requirements: pinned requirements of the peer.
        ours: packages to have in the version that our own environment has. Where torch is one, it
            is installed first, so that whatever comes after keeps that build.
    """
    folder = BENCH / name
    python = folder / "bin" / "python"
    shared = [f"{package}=={version(package).partition('+')[0]}" for package in ours]
    wanted = "\n".join([*requirements, *shared])
    stamp = folder / "installed.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for torch in [requirement for requirement in shared if requirement.startswith("torch==")]:
        subprocess.run([*install, torch], check=True)
    subprocess.run([*install, *requirements, *shared], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python
