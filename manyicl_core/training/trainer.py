"""Train one adapter: the loop, from the data stream to the saved file."""

import math
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from manyicl_core.base_models.load import compute_device, compute_dtype, load_base_model
from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.contract.progress import CheckpointSaved, Message, Started, StepMetrics, Trained
from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.method.objectives import supervised_spans
from manyicl_core.method.plan import TrainingPlan, plan_training
from manyicl_core.method.sequences import EncodedTask, Sequence, SequenceStream
from manyicl_core.training.adapters import add_adapter, save_adapter
from manyicl_core.training.checkpoint import load_checkpoint, save_checkpoint
from manyicl_core.training.loss import SequenceLoss, gathered_loss


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient is no longer a number."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss of step {step} is not finite; lower learning_rate_multiplier")


def make_stream(spec: TrainSpec) -> SequenceStream:
    """The job's data stream."""
    encoder = load_encoder(Path(spec.base_model_folder))
    tasks = [EncodedTask(task, encoder) for task in spec.tasks]
    return SequenceStream(tasks, spec.seed, spec.max_sequence_tokens)


def learning_rate(spec: TrainSpec, step: int, steps: int) -> float:
    """The rate of optimizer step ``step`` (from 0): linear warm-up, then a cosine to zero."""
    warmup = max(1, round(spec.warmup_fraction * steps))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def train(spec: TrainSpec, folder: Path, checkpoint: Path | None) -> Iterator[Message]:
    """Train, yielding progress; checkpoints and the adapter are written under ``folder``.

    Args:
        spec: what to train.
        folder: an own working folder of this run.
        checkpoint: a checkpoint to go on from; the result is byte for byte that of a run that
            was never interrupted (on the same machine and thread count).

    Raises:
        CheckpointMismatch: ``checkpoint`` is of another configuration.
        TrainingDiverged: the learning rate is too high.
        torch.OutOfMemoryError: the sequences do not fit the device.
    """
    torch.set_num_threads(spec.threads)
    stream = make_stream(spec)
    plan = plan_training(stream, spec.objective, spec.batch_size, spec.n_epochs, spec.token_budget)

    device = compute_device()
    dtype = compute_dtype(device)
    torch.manual_seed(spec.seed)  # the adapter's initial weights
    base = load_base_model(Path(spec.base_model_folder), device, dtype)
    model = add_adapter(base, spec.base_model, spec.lora)
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=0.0)

    first_step = load_checkpoint(checkpoint, spec, model, optimizer) if checkpoint else 0
    yield Started(
        step=first_step,
        steps=plan.steps,
        tokens=plan.tokens,
        answers=plan.answers,
        target_tokens=plan.target_tokens,
        dtype=str(dtype).removeprefix("torch."),
    )
    for step in range(first_step, plan.steps):
        yield _step(spec, plan, stream, step, model, optimizer, parameters)
        if (step + 1) % spec.checkpoint_every == 0 and step + 1 < plan.steps:
            saved = save_checkpoint(folder / "checkpoints", spec, step + 1, model, optimizer)
            yield CheckpointSaved(step=step + 1, folder=str(saved))

    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    save_adapter(model, adapter)
    yield Trained(folder=str(adapter), peak_memory_bytes=_peak_memory(device))


def _step(
    spec: TrainSpec,
    plan: TrainingPlan,
    stream: SequenceStream,
    step: int,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
) -> StepMetrics:
    """One optimizer step over ``batch_size`` sequences, one at a time: none needs padding."""
    started = time.perf_counter()
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    device = base.device
    numbers = range(step * spec.batch_size, min((step + 1) * spec.batch_size, plan.sequences))
    batch = [stream.nth(number) for number in numbers]
    spans = [supervised_spans(spec.objective, sequence) for sequence in batch]
    targets = sum(end - start for group in spans for start, end in group)

    results: list[SequenceLoss] = []
    loss = 0.0
    for sequence, group in zip(batch, spans, strict=True):
        # Autocast: the float32 adapters compute in the base's bfloat16 (1.5 times faster on CPU).
        with torch.autocast(device.type, base.dtype, enabled=base.dtype == torch.bfloat16):
            result = gathered_loss(base, torch.from_numpy(sequence.tokens).to(device), group)
        # Divided by the targets of the whole step, so that every answer token weighs the same.
        (result.total / targets).backward()
        loss += float(result.total.detach()) / targets
        results.append(result)

    rate = learning_rate(spec, step, plan.steps)
    for group_ in optimizer.param_groups:
        group_["lr"] = rate
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, spec.max_gradient_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingDiverged(step + 1)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return _metrics(step, loss, rate, norm, targets, batch, results, time.perf_counter() - started)


def _metrics(
    step: int,
    loss: float,
    rate: float,
    norm: float,
    targets: int,
    batch: list[Sequence],
    results: list[SequenceLoss],
    seconds: float,
) -> StepMetrics:
    losses: dict[int, list[float]] = defaultdict(list)
    correct: dict[int, list[float]] = defaultdict(list)
    for result in results:
        for position, (answer_loss, right) in enumerate(zip(result.answer_losses, result.answers_correct, strict=True)):
            bucket = 0 if position == 0 else 1 << (position.bit_length() - 1)
            losses[bucket].append(answer_loss)
            correct[bucket].append(float(right))
    return StepMetrics(
        step=step + 1,
        loss=loss,
        token_accuracy=sum(result.correct_tokens for result in results) / targets,
        learning_rate=rate,
        gradient_norm=norm,
        tokens=sum(len(sequence.tokens) for sequence in batch),
        answers=sum(len(result.answer_losses) for result in results),
        seconds=seconds,
        loss_by_answer={bucket: sum(values) / len(values) for bucket, values in sorted(losses.items())},
        accuracy_by_answer={bucket: sum(values) / len(values) for bucket, values in sorted(correct.items())},
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU where there is one, else the peak resident set of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
