"""Scratch space goes with the process that held it."""

import subprocess
import sys
from pathlib import Path

from manyicl_core.scratch import hold_scratch

HOLD = """
import os, sys, pathlib
from manyicl_core.scratch import hold_scratch
folder = hold_scratch(pathlib.Path(sys.argv[1]))
(folder / "checkpoint").write_text("x")
print(folder, flush=True)
os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
"""


def start_holder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    living, its_folder = start_holder(tmp_path)
    killed, left = start_holder(tmp_path)
    try:
        killed.kill()
        killed.wait()
        assert (left / "checkpoint").exists()

        mine = hold_scratch(tmp_path)

        assert not left.exists()
        assert (its_folder / "checkpoint").exists()
        assert mine.is_dir() and mine.parent == tmp_path
    finally:
        living.kill()
        living.communicate()
        killed.communicate()


def test_a_folder_whose_maker_died_before_it_held_it_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "process-half").mkdir()

    hold_scratch(tmp_path)

    assert not (tmp_path / "process-half").exists()


def test_what_others_keep_in_the_same_place_stays(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()

    hold_scratch(tmp_path)

    assert (tmp_path / "cache").is_dir()
