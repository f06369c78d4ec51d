"""A context's tokens are run through the model once, in chunks, and kept as a prefix."""

import torch

from manyicl_core.inference.language_model import TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix
from manyicl_core.inference.slots import Slots

CHUNK = 512


class Compilation:
    """A prefix in the making, a chunk at a time, so that others can have the model in between.

    Args:
        start: a compiled prefix of ``tokens`` by the same model, to go on from.

    Attributes:
        done: how many of the tokens have been run.
    """

    def __init__(self, model: TunedModel, tokens: tuple[int, ...], start: Prefix = EMPTY_PREFIX) -> None:
        assert tokens[: len(start.tokens)] == start.tokens
        self._model = model
        self._tokens = tokens
        self.done = len(start.tokens)
        self._layers = model.language_model.new_layers(1, len(tokens))
        for ours, theirs in zip(self._layers, start.layers, strict=False):
            for part, other in zip(ours, theirs, strict=True):
                part[:, :, : self.done] = other

    def advance(self, most: int = CHUNK) -> torch.Tensor:
        """Run the next ``most`` tokens; gives their last states, ``[tokens, hidden]``."""
        end = min(self.done + most, len(self._tokens))
        before = Prefix(self._tokens, self._layers).start(self.done)
        own = tuple((keys[:, :, self.done : end], values[:, :, self.done : end]) for keys, values in self._layers)
        slots = Slots(self._model.language_model, own)
        slots.take()
        chunk = list(self._tokens[self.done : end])
        states = slots.run([self._model.adapter], [chunk], [before])
        self.done = end
        return states

    @property
    def left(self) -> int:
        """How many tokens are still to be run."""
        return len(self._tokens) - self.done

    def prefix(self) -> Prefix:
        """What has been made."""
        assert not self.left
        return Prefix(self._tokens, self._layers)


def compile_prefix(model: TunedModel, tokens: tuple[int, ...], start: Prefix = EMPTY_PREFIX) -> Prefix:
    """Run all of ``tokens`` that come after ``start``."""
    if len(tokens) == len(start.tokens):
        return start
    compilation = Compilation(model, tokens, start)
    while compilation.left:
        compilation.advance()
    return compilation.prefix()
