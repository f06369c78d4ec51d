"""How well a model predicts the targets of some sequences, by number of shots."""

from collections import defaultdict
from dataclasses import dataclass, field

import torch

from manyicl_core.training.batches import MicroBatch


@dataclass(slots=True)
class Scores:
    """Sums over micro-batches; ``loss`` is the weighted sum of the targets' losses in nats."""

    loss: float = 0.0
    weight: float = 0.0
    targets: int = 0
    correct: int = 0
    answers: int = 0
    losses_by_shot: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    correct_by_shot: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, batch: MicroBatch, losses: torch.Tensor, correct: torch.Tensor) -> None:
        """Count a micro-batch: ``losses`` float32 and ``correct`` bool, each ``[targets]`` on the CPU.

        An answer is correct when all its tokens are the arg-max, the true ones before each: then
        greedy decoding gives exactly this answer.
        """
        self.loss += float((losses * batch.weights).sum())
        self.weight += float(batch.weights.sum())
        self.targets += len(losses)
        self.correct += int(correct.sum())
        self.answers += len(batch.answers)
        sizes = [answer.end - answer.start for answer in batch.answers]
        for answer, its_losses, its_correct in zip(
            batch.answers, losses.split(sizes), correct.split(sizes), strict=True
        ):
            bucket = 0 if answer.shot == 0 else 1 << (answer.shot.bit_length() - 1)
            self.losses_by_shot[bucket].append(float(its_losses.mean()))
            self.correct_by_shot[bucket].append(bool(its_correct.all()))

    def include(self, other: "Scores") -> None:
        """Add what another process has counted."""
        self.loss += other.loss
        self.weight += other.weight
        self.targets += other.targets
        self.correct += other.correct
        self.answers += other.answers
        for shot, losses in other.losses_by_shot.items():
            self.losses_by_shot[shot] += losses
        for shot, correct in other.correct_by_shot.items():
            self.correct_by_shot[shot] += correct

    @property
    def mean_loss(self) -> float:
        """The normalised loss; 0 where nothing is a target."""
        return self.loss / self.weight if self.weight else 0.0

    @property
    def token_accuracy(self) -> float:
        """The share of targets that are the arg-max; 0 where nothing is a target."""
        return self.correct / self.targets if self.targets else 0.0

    def by_shot(self) -> tuple[dict[int, float], dict[int, float]]:
        """Mean loss and share of correct answers in each bucket of shots (0, 1, 2, 4, 8, …)."""
        return (
            {shot: sum(values) / len(values) for shot, values in sorted(self.losses_by_shot.items())},
            {shot: sum(values) / len(values) for shot, values in sorted(self.correct_by_shot.items())},
        )
