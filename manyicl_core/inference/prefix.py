"""The prefix: keys and values of a compiled context, which all its queries share."""

import hashlib
from array import array
from dataclasses import dataclass, field, replace

from manyicl_core.inference.eight_bits import EightBitLayers
from manyicl_core.inference.row_attention import Layers


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values of a compiled context.

    Attributes:
        tokens: its ids, those of ``before`` included.
        layers: per layer keys and values of the rest, each ``[1, kv heads, tokens, head size]``, as
            numbers or in 8 bits.
        before: the prefix that this one goes on from, which others share.
    """

    tokens: tuple[int, ...]
    layers: Layers
    before: "Prefix | None" = None

    @property
    def chain(self) -> list["Prefix"]:
        """All that it is made of, the first tokens first; nothing for no tokens."""
        if not self.tokens:
            return []
        return [self] if self.before is None else [*self.before.chain, self]

    @property
    def size_bytes(self) -> int:
        """Memory that the keys and values take."""
        if isinstance(self.layers, EightBitLayers):
            return sum(tensor.nbytes for tensor in self.layers.tensors())
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def in_eight_bits(self) -> "Prefix":
        """The same in half the memory, and a little less exact."""
        assert self.before is None
        return Prefix(self.tokens, EightBitLayers.pack(self.layers))

    def start(self, tokens: int) -> "Prefix":
        """Its first ``tokens``, without a copy."""
        assert self.before is None
        if isinstance(self.layers, EightBitLayers):
            return Prefix(self.tokens[:tokens], self.layers.start(tokens))
        layers = tuple((keys[:, :, :tokens], values[:, :, :tokens]) for keys, values in self.layers)
        return Prefix(self.tokens[:tokens], layers)


EMPTY_PREFIX = Prefix((), ())


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """What a prefix is of. Whoever differs in any of it never sees the other's.

    Attributes:
        adapter: hash of the fine-tuned weights; None: the base model.
        salt: the tenant's.
        tokens: ids of the context.
    """

    adapter: str | None
    salt: str
    tokens: tuple[int, ...] = field(compare=False)
    # Thousands of tokens are compared by their hash: keys are looked up many times a step.
    tokens_sha256: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_sha256", hashlib.sha256(array("Q", self.tokens)).digest())

    def start(self, tokens: int) -> "PrefixKey":
        """The key of its first ``tokens``."""
        return replace(self, tokens=self.tokens[:tokens])
