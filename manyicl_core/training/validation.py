"""The loss on examples that are not trained on, measured while training."""

import torch
from torch import nn

from manyicl_core.contract.train_spec import TrainSpec, ValidationSpec
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.objectives import stands_alone
from manyicl_core.method.sequences import EncodedTask, Sequence, SequenceStream
from manyicl_core.training.batches import idle_batch, micro_batch
from manyicl_core.training.distribution import Distribution
from manyicl_core.training.scores import Scores


def validation_sequences(spec: TrainSpec, validation: ValidationSpec, encoder: Encoder) -> list[Sequence]:
    """Sequences of the validation's examples, made as the trained ones are: the same every time."""
    tasks = [EncodedTask(task, encoder) for task in validation.tasks]
    stream = SequenceStream(tasks, spec.seed, spec.stream, stands_alone(spec.objective))
    return [stream.nth(number) for number in range(min(validation.sequences, stream.epoch_length))]


@torch.no_grad()
def validate(spec: TrainSpec, loss: nn.Module, sequences: list[Sequence], distribution: Distribution) -> Scores:
    """Score the sequences under the job's objective; dropout is off meanwhile."""
    scores = Scores()
    loss.eval()
    batches = [micro_batch([sequence], spec.objective, spec.normalization) for sequence in distribution.own(sequences)]
    batches += [idle_batch()] * (distribution.rounds(len(sequences)) - len(batches))
    for batch in batches:
        with distribution.part(batch) as part:
            losses, correct = loss(part.tokens, part.labels, part.positions)
            scores.add(batch, *distribution.whole_targets(batch, part, losses, correct))
    loss.train()
    return distribution.merge(scores)
