"""What a job will do, known before it starts: sequences, steps, tokens, answers."""

from dataclasses import dataclass

from manyicl_core.method.objectives import Objective, supervised_answers
from manyicl_core.method.sequences import SequenceStream


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Totals over all sequences of a job; ``answers`` and ``target_tokens`` count what is learnt."""

    sequences: int
    steps: int
    tokens: int
    target_tokens: int
    answers: int


def plan_training(
    stream: SequenceStream,
    objective: Objective,
    batch_size: int,
    n_epochs: int | None,
    token_budget: int | None,
) -> TrainingPlan:
    """Count a job through.

    Exactly one of ``n_epochs`` and ``token_budget`` is given. Whole optimizer steps of
    ``batch_size`` sequences are made until the budget is met (the last step of an epochs' run may
    be smaller).
    """
    assert (n_epochs is None) != (token_budget is None)
    limit = n_epochs * stream.epoch_length if n_epochs is not None else None
    sequences = steps = tokens = target_tokens = answers = 0
    while (sequences < limit) if limit is not None else (tokens < (token_budget or 0)):
        size = batch_size if limit is None else min(batch_size, limit - sequences)
        for number in range(sequences, sequences + size):
            sequence = stream.nth(number)
            supervised = supervised_answers(objective, sequence)
            tokens += len(sequence.tokens)
            target_tokens += sum(answer.end - answer.start for answer in supervised)
            answers += len(supervised)
        sequences += size
        steps += 1
    return TrainingPlan(sequences, steps, tokens, target_tokens, answers)
