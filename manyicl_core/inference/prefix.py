"""The prefix: keys and values of a compiled context, which all its queries share."""

from dataclasses import dataclass

from manyicl_core.inference.row_attention import Layers


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values of a compiled context.

    Attributes:
        tokens: its ids.
        layers: per layer keys and values, each ``[1, kv heads, len(tokens), head size]``.
    """

    tokens: tuple[int, ...]
    layers: Layers

    @property
    def size_bytes(self) -> int:
        """Memory that the keys and values take."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def start(self, tokens: int) -> "Prefix":
        """Its first ``tokens``, without a copy."""
        layers = tuple((keys[:, :, :tokens], values[:, :, :tokens]) for keys, values in self.layers)
        return Prefix(self.tokens[:tokens], layers)


EMPTY_PREFIX = Prefix((), ())
