"""Train one job: the loop, from the data stream to the saved weights."""

import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from manyicl_core.base_models.load import compute_device, compute_dtype
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.progress import CheckpointSaved, Message, Started, StepMetrics, Trained
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.method.objectives import stands_alone
from manyicl_core.method.plan import TrainingPlan, plan_training
from manyicl_core.method.sequences import EncodedTask, Sequence, SequenceStream
from manyicl_core.training.batches import MicroBatch, idle_batch, micro_batch, total_weight
from manyicl_core.training.checkpoint import (
    TrainingState,
    copy_weights,
    load_checkpoint,
    load_optimizer,
    save_checkpoint,
)
from manyicl_core.training.distribution import Distribution
from manyicl_core.training.loss import AnswerLoss
from manyicl_core.training.schedule import learning_rate
from manyicl_core.training.scores import Scores
from manyicl_core.training.sharding import whole
from manyicl_core.training.validation import validate, validation_sequences
from manyicl_core.training.weights import save_weights, trainable_model


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient is no longer a number."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss of step {step} is not finite; lower learning_rate_multiplier")


def make_stream(spec: TrainSpec) -> SequenceStream:
    """The job's data stream."""
    encoder = load_encoder(Path(spec.base_model_folder))
    tasks = [EncodedTask(task, encoder) for task in spec.tasks]
    return SequenceStream(tasks, spec.seed, spec.stream, stands_alone(spec.objective))


def train(
    spec: TrainSpec,
    folder: Path,
    checkpoint: Path | None,
    best: Path | None = None,
    must_leave: Callable[[], bool] = lambda: False,
) -> Iterator[Message]:
    """Train, yielding progress; checkpoints and the trained weights are written under ``folder``.

    Under ``torch.distributed.run`` every process of the job calls this. All yield the same; the
    first alone writes files.

    Args:
        spec: what to train.
        folder: an own working folder of this run.
        checkpoint: a checkpoint to go on from; the result is byte for byte that of a run that
            was never interrupted (on the same machine and thread count).
        best: the checkpoint with the best validation loss so far, where that is another one.
        must_leave: whether to save where it stands after the present step, and end without having trained all.

    Raises:
        CannotDistribute: several processes cannot share this job.
        CheckpointMismatch: ``checkpoint`` is of another configuration.
        TrainingDiverged: the learning rate is too high.
        torch.OutOfMemoryError: the sequences do not fit the device.
    """
    device = compute_device()
    dtype = compute_dtype(device)
    if spec.deterministic:
        _choose_deterministic_kernels()
    distribution = Distribution.join(spec, device, dtype)
    torch.set_num_threads(distribution.threads(spec.threads))
    stream = make_stream(spec)
    plan = plan_training(stream, spec.objective, spec.batch_size, spec.n_epochs, spec.token_budget)

    torch.manual_seed(spec.seed)  # a fresh adapter's initial weights
    model = trainable_model(spec, distribution.loading_device, dtype)
    model.train()
    state = load_checkpoint(checkpoint, spec, model) if checkpoint else TrainingState()
    adamw = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=spec.learning_rate,
        weight_decay=spec.weight_decay,
    )
    loss, optimizer = distribution.prepare(AnswerLoss(model), adamw)
    if checkpoint:
        load_optimizer(checkpoint, model, optimizer)
    validation = spec.validation
    validated = validation_sequences(spec, validation, load_encoder(Path(spec.base_model_folder))) if validation else []

    if state.best_step == state.step:
        best = checkpoint
    yield Started(
        step=state.step,
        steps=plan.steps,
        tokens=plan.tokens,
        answers=plan.answers,
        target_tokens=plan.target_tokens,
        dtype=str(dtype).removeprefix("torch."),
    )
    while state.step < plan.steps and not _out_of_patience(spec, state):
        metrics = _step(spec, plan, stream, state.step, loss, optimizer, distribution, dtype)
        state.step += 1
        is_best = False
        if validation and (state.step % validation.every == 0 or state.step == plan.steps):
            with autocast(device, dtype):
                scores = validate(spec, loss, validated, distribution)
            metrics.valid_loss, metrics.valid_token_accuracy = scores.mean_loss, scores.token_accuracy
            is_best = state.record(scores.mean_loss)
        yield metrics
        left = state.step < plan.steps
        leaves = left and distribution.any(must_leave())
        if is_best or leaves or (left and state.step % spec.checkpoint_every == 0):
            saved = save_checkpoint(folder / "checkpoints", spec, state, model, optimizer, distribution.leads)
            best = saved if is_best else best
            yield CheckpointSaved(step=state.step, folder=str(saved), valid_loss=metrics.valid_loss, best=is_best)
        if leaves:
            distribution.leave()
            return

    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    step = state.best_step if validation and validation.patience is not None else state.step
    if step == state.step:
        save_weights(model, weights, distribution.leads)
    elif distribution.leads:
        assert best is not None
        copy_weights(best, weights)
    distribution.leave()
    yield Trained(step=step, folder=str(weights), peak_memory_bytes=peak_memory(device))


def _out_of_patience(spec: TrainSpec, state: TrainingState) -> bool:
    patience = spec.validation.patience if spec.validation else None
    return patience is not None and state.measured_since_best >= patience


def _step(
    spec: TrainSpec,
    plan: TrainingPlan,
    stream: SequenceStream,
    step: int,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    distribution: Distribution,
    dtype: torch.dtype,
) -> StepMetrics:
    """One optimizer step over ``batch_size`` sequences, ``micro_batch_size`` of them at a time in a process."""
    started = time.perf_counter()
    # Dropout is drawn anew from the step, so that no random state need be kept for resuming.
    torch.manual_seed(spec.seed + step + distribution.seed_offset)
    numbers = range(step * spec.batch_size, min((step + 1) * spec.batch_size, plan.sequences))
    sequences = [stream.nth(number) for number in numbers]
    own = distribution.own(sequences)
    batches = [
        micro_batch(own[start : start + spec.micro_batch_size], spec.objective, spec.normalization)
        for start in range(0, len(own), spec.micro_batch_size)
    ]
    batches += [idle_batch()] * (distribution.rounds(len(sequences), spec.micro_batch_size) - len(batches))
    # Divided by the weight of the whole step, so that the micro-batches' sizes do not matter.
    weight = total_weight(sequences, spec.objective, spec.normalization)
    scores = Scores()
    for number, batch in enumerate(batches, 1):
        if distribution.must_pass(batch) and weight:
            with distribution.accumulate(loss, last=number == len(batches)):
                _backward(loss, batch, weight, scores, distribution, dtype)
    scores = distribution.merge(scores)

    rate = learning_rate(spec, step, plan.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    norm = float(whole(torch.nn.utils.clip_grad_norm_(loss.parameters(), spec.max_gradient_norm)))
    if not (math.isfinite(scores.mean_loss) and math.isfinite(norm)):
        raise TrainingDiverged(step + 1)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return _metrics(step, rate, norm, sequences, scores, time.perf_counter() - started)


def _backward(
    loss: nn.Module,
    batch: MicroBatch,
    weight: float,
    scores: Scores,
    distribution: Distribution,
    dtype: torch.dtype,
) -> None:
    with distribution.part(batch) as part:
        with autocast(distribution.device, dtype):
            losses, correct = loss(part.tokens, part.labels, part.positions)
        # Processes' gradients are averaged where their sum is meant.
        ((losses * part.weights).sum() * distribution.layout.processes / weight).backward()
    scores.add(batch, *distribution.whole_targets(batch, part, losses.detach(), correct))


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """The float32 trained weights compute in the base's bfloat16 (1.5 times faster on CPU)."""
    return torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16)


def _metrics(
    step: int, rate: float, norm: float, sequences: list[Sequence], scores: Scores, seconds: float
) -> StepMetrics:
    loss_by_shot, accuracy_by_shot = scores.by_shot()
    return StepMetrics(
        step=step + 1,
        loss=scores.mean_loss,
        token_accuracy=scores.token_accuracy,
        learning_rate=rate,
        gradient_norm=norm,
        tokens=sum(len(sequence.tokens) for sequence in sequences),
        answers=scores.answers,
        seconds=seconds,
        loss_by_answer=loss_by_shot,
        accuracy_by_answer=accuracy_by_shot,
    )


def _choose_deterministic_kernels() -> None:
    """The same bits on every run of a GPU; some kernels are slower, and one without such a form raises."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU where there is one, else the peak resident set of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
