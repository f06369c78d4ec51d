"""From the log-probabilities of whole labels to probabilities, and to an answer."""

import math
import random
from collections.abc import Sequence


def probabilities(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Softmax over the labels' log-probabilities: how probable each is, given that it is one of them."""
    highest = max(scores)
    weights = [math.exp((score - highest) / temperature) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def drawn(scores: Sequence[float], temperature: float, generator: random.Random) -> int:
    """The index of an answer: the most probable label at temperature 0, else one by its probability."""
    if temperature == 0:
        return max(range(len(scores)), key=scores.__getitem__)
    return generator.choices(range(len(scores)), probabilities(scores, temperature))[0]
