"""A context's tokens are run through the model once, in chunks, and kept as a prefix."""

import torch

from manyicl_core.inference.language_model import TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix
from manyicl_core.inference.slots import Slots

CHUNK = 512


class Compilation:
    """A prefix in the making, a chunk at a time, so that others can have the model in between.

    Args:
        start: a compiled prefix of ``tokens`` by the same model, to go on from with a copy of it.
        before: one to go on from without a copy; what is made then stands behind it.

    Attributes:
        done: how many of the tokens have been run.
    """

    def __init__(
        self,
        model: TunedModel,
        tokens: tuple[int, ...],
        start: Prefix = EMPTY_PREFIX,
        before: Prefix = EMPTY_PREFIX,
    ) -> None:
        assert not (start.tokens and before.tokens)
        self.done = len(start.tokens) + len(before.tokens)
        assert tokens[: self.done] == start.tokens + before.tokens
        self._model = model
        self._tokens = tokens
        self._before = before
        self._layers = model.language_model.new_prefix(len(tokens) - len(before.tokens))
        for ours, theirs in zip(self._layers, start.layers, strict=False):
            for part, other in zip(ours, theirs, strict=True):
                part[:, :, : len(start.tokens)] = other

    def advance(self, most: int = CHUNK) -> torch.Tensor:
        """Run the next ``most`` tokens; gives their last states, ``[tokens, hidden]``."""
        end = min(self.done + most, len(self._tokens))
        done = self._part(self.done) if self.done > len(self._before.tokens) else self._before
        begin, stop = (place - len(self._before.tokens) for place in (self.done, end))
        own = tuple((keys[:, :, begin:stop], values[:, :, begin:stop]) for keys, values in self._layers)
        slots = Slots(self._model.language_model, own)
        slots.take()
        chunk = list(self._tokens[self.done : end])
        states = slots.run([self._model.adapter], [chunk], [done])
        self.done = end
        return states

    @property
    def left(self) -> int:
        """How many tokens are still to be run."""
        return len(self._tokens) - self.done

    def prefix(self) -> Prefix:
        """What has been made."""
        assert not self.left
        return self._part(len(self._tokens))

    def _part(self, end: int) -> Prefix:
        """The first ``end`` tokens, without a copy."""
        tokens = end - len(self._before.tokens)
        layers = tuple((keys[:, :, :tokens], values[:, :, :tokens]) for keys, values in self._layers)
        return Prefix(self._tokens[:end], layers, self._before if self._before.tokens else None)


def compile_prefix(model: TunedModel, tokens: tuple[int, ...], start: Prefix = EMPTY_PREFIX) -> Prefix:
    """Run all of ``tokens`` that come after ``start``."""
    if len(tokens) == len(start.tokens):
        return start
    compilation = Compilation(model, tokens, start)
    while compilation.left:
        compilation.advance()
    return compilation.prefix()
