"""Draw the demonstrations of a hosted context: balanced, at random, or spread over the inputs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manyicl_core.method.contexts import Context, fill_context
from manyicl_core.method.encoding import Encoder
from manyicl_core.method.sampling import context_order
from manyicl_core.method.selection import SelectionKind, spread_order
from manyicl_core.method.tasks import Example, Task

# Among more, drawn at random, the spread is no better, and the time grows with candidates times shots.
_MOST_CANDIDATES = 4000
_COMPARED_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Draw:
    """From what, and how much, a context is drawn; the same draw always gives the same context."""

    encoder: Encoder
    task: Task
    seed: int
    max_shots: int | None
    max_tokens: int

    def context(self, kind: SelectionKind) -> Context:
        """The context that this kind of selection gives: at most so many shots and tokens."""
        examples = self.task.demonstrations
        labels = self.task.definition.labels
        outputs = [example.output for example in examples]
        balanced = kind == "balanced" or (kind == "diverse" and labels is not None)
        order: Iterable[int] = context_order(self.seed, 0, self.task.definition.name, outputs, balanced)
        if kind == "diverse":
            order = _spread(examples, list(order)[:_MOST_CANDIDATES], balanced)
        limit = len(examples) if self.max_shots is None else self.max_shots
        chosen = (examples[index] for _, index in zip(range(limit), order, strict=False))
        return fill_context(self.encoder, self.task.definition.instruction, chosen, self.max_tokens)

    def of(self, examples: list[Example]) -> "Draw":
        """The same from other examples."""
        return replace(self, task=self.task.model_copy(update={"demonstrations": examples}))

    def shots(self, max_shots: int | None) -> "Draw":
        """The same with at most so many shots."""
        return replace(self, max_shots=max_shots)


def _spread(examples: list[Example], candidates: list[int], balanced: bool) -> Iterable[int]:
    groups = [examples[index].output if balanced else "" for index in candidates]
    similarity = _similarities([examples[index].input for index in candidates])
    return (candidates[position] for position in spread_order(groups, similarity))


def _similarities(texts: list[str]) -> Callable[[int], NDArray[np.floating]]:
    """The cosine similarity of one text to all, over TF-IDF of the letters in its words: any language has these."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), dtype=np.float32)
    vectors = vectorizer.fit_transform([text[:_COMPARED_CHARACTERS] for text in texts])

    def similarity(position: int) -> NDArray[np.floating]:
        row: NDArray[np.floating] = (vectors @ vectors[position].T).toarray().ravel()
        return row

    return similarity
