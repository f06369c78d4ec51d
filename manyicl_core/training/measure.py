"""Measure how fast this machine trains: ``python -m manyicl_core.training.measure FOLDER``.

``FOLDER/spec.json`` is a train spec; its base model and adapter are measured on random tokens, its
data is not looked at. The result is one ``measured`` progress line.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_STARTED = time.monotonic()  # before torch is imported: that takes most of a trainer's start

from manyicl_core.job_process import importing_torch, reporting_failed_imports, run_reporting  # noqa: E402

with importing_torch(), reporting_failed_imports():
    import numpy as np
    import torch

    from manyicl_core.base_models.load import compute_device, compute_dtype
    from manyicl_core.contract.progress import Measured, MeasuredBatch
    from manyicl_core.contract.train_spec import TrainSpec
    from manyicl_core.method.sequences import Answer, Sequence
    from manyicl_core.training.batches import MicroBatch, micro_batch
    from manyicl_core.training.checkpoint import TrainingState, save_checkpoint
    from manyicl_core.training.loss import AnswerLoss
    from manyicl_core.training.trainer import autocast, peak_memory
    from manyicl_core.training.weights import trainable_model

_LONGEST = 2048
# Parts of the longest length with the share of target tokens: ascending, because the peak memory
# of a process only grows; one has few targets, which tells the output head from the rest.
_BATCHES = ((1 / 8, 0.2), (1 / 4, 0.2), (1 / 2, 0.02), (1 / 2, 0.2), (1.0, 0.2))
_ANSWER_TOKENS = 4
_SECONDS_A_BATCH = 5.0
_MOST_REPEATS = 5


def measure(spec: TrainSpec, folder: Path, started: float) -> Iterator[Measured]:
    """Train on random tokens, a few steps of each of some lengths.

    Args:
        started: when this process was started, by ``time.monotonic``.
    """
    torch.set_num_threads(spec.threads)
    device = compute_device()
    dtype = compute_dtype(device)
    model = trainable_model(spec, device, dtype)
    model.train()
    loss = AnswerLoss(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    start_seconds = time.monotonic() - started

    before = _scheduled()
    vocabulary, longest = model.config.vocab_size, min(_LONGEST, model.config.max_position_embeddings)
    assert isinstance(vocabulary, int) and isinstance(longest, int)
    batches = [_batch(round(part * longest), share, vocabulary) for part, share in _BATCHES]
    # The first steps of a process are slow, and the first makes the optimizer's state.
    for _ in range(2):
        _backward(loss, batches[0], device, dtype)
        _optimizer_step(loss, optimizer)
    measured = [_measure_batch(loss, batch, device, dtype) for batch in batches]
    optimizer_seconds = statistics.median(_seconds_of_optimizer(loss, optimizer, batches[0], device, dtype))
    saving = time.perf_counter()
    save_checkpoint(folder / "checkpoints", spec, TrainingState(step=1), model, optimizer)
    yield Measured(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=str(dtype).removeprefix("torch."),
        threads=spec.threads,
        start_seconds=start_seconds,
        optimizer_seconds=optimizer_seconds,
        checkpoint_seconds=time.perf_counter() - saving,
        batches=measured,
        processor_share=_share(before, _scheduled()),
    )


def _scheduled() -> tuple[int, int] | None:
    """Nanoseconds that the threads of this process have run, and have waited for a processor; None: unknown.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat.
    """
    try:
        lines = [path.read_text(encoding="ascii") for path in Path("/proc/self/task").glob("*/schedstat")]
    except OSError:
        return None
    fields = [line.split() for line in lines]
    return sum(int(ran) for ran, _, _ in fields), sum(int(waited) for _, waited, _ in fields)


def _share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after == before:
        return None
    ran, waited = (late - early for early, late in zip(before, after, strict=True))
    return round(ran / (ran + waited), 3)


def _batch(length: int, share: float, vocabulary: int) -> MicroBatch:
    """One document of random tokens, with short answers evenly over it."""
    tokens = np.random.default_rng(length).integers(0, vocabulary, length)
    starts = np.linspace(1, length - _ANSWER_TOKENS, max(1, round(share * length / _ANSWER_TOKENS)), dtype=np.int64)
    answers = tuple(Answer(start, start + _ANSWER_TOKENS, shot) for shot, start in enumerate(starts.tolist()))
    return micro_batch([Sequence("", tuple(range(len(answers))), tokens, answers, (0,))], "many_icl", "token")


def _measure_batch(loss: AnswerLoss, batch: MicroBatch, device: torch.device, dtype: torch.dtype) -> MeasuredBatch:
    """Run it a few times; the median of the seconds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    while len(seconds) < _MOST_REPEATS and sum(seconds) < _SECONDS_A_BATCH:
        began = time.perf_counter()
        _backward(loss, batch, device, dtype)
        seconds.append(time.perf_counter() - began)
        loss.zero_grad(set_to_none=True)
    with torch.no_grad(), autocast(device, dtype):
        began = time.perf_counter()
        loss(batch.tokens.to(device), batch.labels.to(device))
        _wait_for(device)
        scoring_seconds = time.perf_counter() - began
    return MeasuredBatch(
        tokens=batch.tokens.numel(),
        targets=len(batch.weights),
        seconds=statistics.median(seconds),
        scoring_seconds=scoring_seconds,
        peak_memory_bytes=peak_memory(device),
    )


def _seconds_of_optimizer(
    loss: AnswerLoss, optimizer: torch.optim.Optimizer, batch: MicroBatch, device: torch.device, dtype: torch.dtype
) -> Iterator[float]:
    for _ in range(_MOST_REPEATS):
        _backward(loss, batch, device, dtype)
        began = time.perf_counter()
        _optimizer_step(loss, optimizer)
        _wait_for(device)
        yield time.perf_counter() - began


def _backward(loss: AnswerLoss, batch: MicroBatch, device: torch.device, dtype: torch.dtype) -> None:
    with autocast(device, dtype):
        losses, _ = loss(batch.tokens.to(device), batch.labels.to(device))
    losses.mean().backward()
    _wait_for(device)


def _optimizer_step(loss: AnswerLoss, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(folder: Path) -> int:
    """Measure what ``folder/spec.json`` would train."""
    return run_reporting(_measure(folder))


def _measure(folder: Path) -> Iterator[Measured]:
    spec = TrainSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    yield from measure(spec, folder, _STARTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
