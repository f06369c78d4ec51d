"""How many processes train one job: one a GPU. Asked without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal


def visible_gpus() -> int:
    """The NVIDIA GPUs that this worker may use.

    ``CUDA_VISIBLE_DEVICES`` says which, where it is set, as it does to CUDA; else ``nvidia-smi``
    counts them.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([name for name in chosen.split(",") if name.strip() not in ("", "-1")])
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    listing = subprocess.run([program, "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def training_command(module: str, folder: Path, processes: int | Literal["auto"]) -> list[str]:
    """The command that trains the job in ``folder``: a launcher of several processes, or one alone."""
    count = visible_gpus() if processes == "auto" else processes
    if count <= 1:
        return [sys.executable, "-m", module, str(folder)]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "--max-restarts=0"]
    return [sys.executable, "-m", *launcher, "-m", module, str(folder)]
