"""A base model is checked once, in a process of its own, and what was found is kept."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from manyicl_core.base_models.catalog import BaseModelEntry, base_model_folder
from manyicl_core.base_models.shape import UnsupportedBaseModel
from manyicl_core.base_models.tensor_files import BrokenTensors, weights_digest
from manyicl_core.child_process import job_environment
from manyicl_core.settings import get_settings

_OUR_PARTS = ("base_models", "inference", "method", "self_test", "training")
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers")


class CheckFailed(RuntimeError):
    """The check ended without saying whether the model can be used."""


class Verdict(BaseModel):
    """What the check said of a model's files.

    Attributes:
        model_type: as its configuration calls it.
        reason: why it cannot be used; None: it can.
    """

    model_type: str
    reason: str | None
    seconds: float


def check_base_model(entry: BaseModelEntry, say: Callable[[str], None]) -> Verdict:
    """Compare what this installation computes of a pulled model with transformers, unless that is known.

    Raises:
        UnsupportedBaseModel: they differ, or it cannot be computed; the message names the part.
        CheckFailed: for want of memory, for example.
    """
    folder = base_model_folder(entry)
    try:
        kept = get_settings().model_cache / "checks" / f"{_key(folder)}.json"
    except (BrokenTensors, OSError) as error:
        raise UnsupportedBaseModel(f"{entry.id} cannot be used: {error}") from error
    verdict = _read(kept)
    if verdict is None:
        say(f"checking that {entry.id} is computed right here: once for these files")
        verdict = _run(entry.id, folder)
        _keep(kept, verdict)
    if verdict.reason is not None:
        raise UnsupportedBaseModel(
            f"{entry.id} ({verdict.model_type}) cannot be used: {verdict.reason}; choose another base model "
            "(MANYICL_BASE_MODEL)"
        )
    return verdict


def _key(folder: Path) -> str:
    """Of all that decides the verdict: the model's files, our code, and the libraries."""
    digest = hashlib.sha256(weights_digest(folder).encode())
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja")]):
        digest.update(path.name.encode() + path.read_bytes())
    package = Path(__file__).parent.parent
    for part in _OUR_PARTS:
        for path in sorted((package / part).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    return digest.hexdigest()


def _read(kept: Path) -> Verdict | None:
    with suppress(OSError, ValidationError):
        return Verdict.model_validate_json(kept.read_text(encoding="utf-8"))
    return None


def _keep(kept: Path, verdict: Verdict) -> None:
    """For the next start; where nothing can be written, that one checks again."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{kept.name}.{os.getpid()}")
        new.write_text(verdict.model_dump_json(), encoding="utf-8")
        new.rename(kept)


def _run(name: str, folder: Path) -> Verdict:
    # In a process of its own: the command line stays free of torch, and the memory comes back.
    done = subprocess.run(
        [sys.executable, "-m", "manyicl_core.self_test", str(folder)],
        env=job_environment(dict(os.environ)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return Verdict.model_validate(json.loads(done.stdout.splitlines()[-1]))
    said = done.stderr.strip().splitlines()
    raise CheckFailed(
        f"{name} could not be checked: the check ended with status {done.returncode} "
        f"({said[-1] if said else 'it said nothing'}); free some memory and start again"
    )
