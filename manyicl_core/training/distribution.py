"""How the processes of one training job share its work (accelerate over torch.distributed).

``python -m torch.distributed.run`` starts them. A step's sequences are dealt out, and its gradients
are the sum over all processes, so that their number changes nothing but the order of sums. A
process that is alone takes none of these paths.
"""

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, ParallelismConfig
from accelerate.utils import (
    DistributedDataParallelKwargs,
    enable_fsdp_ram_efficient_loading,
    gather_object,
)
from safetensors import safe_open
from torch import nn

from manyicl_core.contract.train_spec import TrainSpec
from manyicl_core.method.sequences import Sequence
from manyicl_core.training.batches import MicroBatch
from manyicl_core.training.context_parallel import join_targets, split_sequence
from manyicl_core.training.loss import AnswerLoss
from manyicl_core.training.scores import Scores

LONG_SEQUENCE = 32_768
"""The most tokens of one sequence that a process takes alone where another could help."""

_MODEL_SHARE = 0.7
"""How much of a device's memory the model's resident bytes may take; the rest is for activations."""

_TRAINED_BYTES = 16
"""Of a trained float32 parameter: itself, its gradient and AdamW's two moments."""


class CannotDistribute(ValueError):
    """A job that several processes cannot share."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What each of the job's processes holds.

    Attributes:
        processes: how many there are.
        sharded: every process holds a part of each weight (FSDP2) instead of all (DDP).
        context: so many processes compute one sequence together (context parallel).
    """

    processes: int = 1
    sharded: bool = False
    context: int = 1


def choose_layout(processes: int, model_bytes: int, device_bytes: int | None, sequence_tokens: int) -> Layout:
    """DDP where the model fits a device, FSDP2 where it does not, context parallel for long sequences.

    Args:
        processes: of the job, one a device.
        model_bytes: what a whole model keeps in memory (``resident_bytes``).
        device_bytes: a device's memory; None for CPUs: their processes share one memory, which
            sharding would not widen, and torch's ring attention has no kernel for them.
        sequence_tokens: the longest sequence.
    """
    if processes == 1 or device_bytes is None:
        return Layout(processes)
    divisors = [size for size in range(1, processes + 1) if processes % size == 0]
    context = next((size for size in divisors if sequence_tokens <= size * LONG_SEQUENCE), processes)
    return Layout(processes, sharded=context > 1 or model_bytes > _MODEL_SHARE * device_bytes, context=context)


def resident_bytes(spec: TrainSpec, dtype: torch.dtype) -> int:
    """Bytes of a whole model in training, activations aside; of LoRA's few trained weights none are counted."""
    parameters = 0
    for path in Path(spec.base_model_folder).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            parameters += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    if spec.lora is None:
        return parameters * _TRAINED_BYTES
    return parameters // 2 if spec.lora.quantize_base else parameters * dtype.itemsize


def device_bytes(device: torch.device) -> int | None:
    """The memory of a GPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


@dataclass(frozen=True, slots=True)
class Part:
    """What one process computes of a micro-batch, on its device.

    Attributes:
        tokens: int64 ``[rows, part of the length]``.
        labels: as ``MicroBatch.labels``.
        weights: float32 ``[targets of the part]``.
        positions: int64, like ``tokens``, where the part is not the whole; else None.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor | None = None


class Distribution:
    """This process's place among those of the job, joined when it is made.

    Attributes:
        layout: who holds what.
        device: where this process computes.
        loading_device: where it loads the model; a sharded one does not fit ``device``.
        leads: whether this is the one that reports and writes files.
        seed_offset: tells the processes' dropout apart.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        self.loading_device = torch.device("cpu") if layout.sharded else device
        self._accelerator = _accelerator(layout, device) if layout.processes > 1 else None
        rank: int = self._accelerator.process_index if self._accelerator else 0
        self.leads = rank == 0
        self.seed_offset = rank << 40
        # Processes that share a sequence are neighbours, as in accelerate's device mesh.
        self._share, self._place = divmod(rank, layout.context)
        self._shares = layout.processes // layout.context

    @classmethod
    def join(cls, spec: TrainSpec, device: torch.device, dtype: torch.dtype) -> "Distribution":
        """Find the other processes that the launcher has started, if any.

        Raises:
            CannotDistribute: the job needs sharding, and its base is in 4 bits.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if processes == 1:
            return cls(Layout(), device)
        memory = device_bytes(device)
        layout = choose_layout(processes, resident_bytes(spec, dtype), memory, spec.stream.max_sequence_tokens)
        if layout.sharded and spec.lora and spec.lora.quantize_base:
            raise CannotDistribute(
                "a base in 4 bits cannot be shared out among GPUs, as this model's size or max_sequence_tokens "
                f"above {LONG_SEQUENCE} needs; turn quantize_base off, or lower max_sequence_tokens"
            )
        return cls(layout, device)

    def prepare(self, loss: AnswerLoss, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Distribute the model and what optimizes it, both at once as FSDP2 needs."""
        if self._accelerator is None:
            return loss, optimizer
        if self.layout.sharded:
            # A shard group a layer. Groups may mix a bfloat16 base with float32 adapters: only
            # what is trained needs one dtype.
            plugin = self._accelerator.state.fsdp_plugin
            plugin.transformer_cls_names_to_wrap = sorted(loss.language_model()._no_split_modules or ())
        prepared_loss, prepared_optimizer = self._accelerator.prepare(loss, optimizer)
        return prepared_loss, prepared_optimizer

    def threads(self, of_the_job: int) -> int:
        """This process's part of the CPU threads."""
        return max(1, of_the_job // self.layout.processes)

    def rounds(self, sequences: int, at_once: int = 1) -> int:
        """Passes over ``sequences`` dealt out, ``at_once`` a pass: the same number in every process.

        All take part in each pass, as sharded weights are gathered in it; who has no sequence left
        passes an idle batch.
        """
        return math.ceil(math.ceil(sequences / self._shares) / at_once)

    def own(self, sequences: list[Sequence]) -> list[Sequence]:
        """This process's hand of a step's sequences: r, r + n, r + 2n, … where n share them."""
        return sequences[self._share :: self._shares]

    @contextmanager
    def part(self, batch: MicroBatch) -> Iterator[Part]:
        """What this process computes of ``batch``; its backward pass belongs inside."""
        if self.layout.context == 1:
            yield Part(batch.tokens.to(self.device), batch.labels.to(self.device), batch.weights.to(self.device))
            return
        assert self._accelerator is not None
        with split_sequence(self._accelerator, batch, self.layout.context, self.device) as parts:
            yield Part(*parts)

    def whole_targets(
        self, batch: MicroBatch, part: Part, losses: torch.Tensor, correct: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What was found for the part's targets -> for all the batch's, on the CPU."""
        if part.positions is None:
            return losses.cpu(), correct.cpu()
        assert self._accelerator is not None
        both = torch.stack([losses, correct.float()])
        losses, correct = join_targets(self._accelerator, batch.labels, part.labels, part.positions, both)
        return losses, correct.bool()

    def must_pass(self, batch: MicroBatch) -> bool:
        """Whether ``batch`` goes through the model: where it has targets, or others wait for this process."""
        return bool(batch.answers) or self.layout.processes > 1

    def accumulate(self, loss: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around a pass: replicas exchange gradients in a step's last; shards in each, to hold no more than theirs."""
        if self._accelerator is None or self.layout.sharded or last:
            return nullcontext()
        context: AbstractContextManager[None] = self._accelerator.no_sync(loss)
        return context

    def merge(self, scores: Scores) -> Scores:
        """The sum of all processes' scores, in each of them."""
        if self._accelerator is None:
            return scores
        total = Scores()
        # Those that share a sequence have all counted it.
        for counted in gather_object([scores if self._place == 0 else Scores()]):
            total.include(counted)
        return total

    def any(self, own: bool) -> bool:
        """Whether it is so in one of the processes; all of them get the same answer."""
        return own if self._accelerator is None else any(gather_object([own]))

    def leave(self) -> None:
        """Part from the others, when all is done."""
        if self._accelerator is not None:
            self._accelerator.end_training()


def _accelerator(layout: Layout, device: torch.device) -> Accelerator:
    if not layout.sharded:
        handler = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        return Accelerator(cpu=device.type == "cpu", kwargs_handlers=[handler])
    # The first process alone reads the weights, and sends the others theirs.
    enable_fsdp_ram_efficient_loading()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=True,
    )
    mesh = ParallelismConfig(dp_shard_size=layout.processes // layout.context, cp_size=layout.context)
    return Accelerator(fsdp_plugin=plugin, parallelism_config=mesh)
