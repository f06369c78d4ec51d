"""Compiled prefixes in memory, least recently used out first."""

from collections import OrderedDict

from manyicl_core.inference.prefix import Prefix


class PrefixStore:
    """Prefixes by adapter and tokens, within a budget of bytes.

    The key holds every token and the hash of the fine-tuned weights, so that no answer ever comes
    from another model's or another tenant's demonstrations.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._prefixes: OrderedDict[tuple[str | None, tuple[int, ...]], Prefix] = OrderedDict()
        self._bytes = 0

    def get(self, adapter: str | None, tokens: tuple[int, ...]) -> Prefix | None:
        """The compiled prefix, if it is here."""
        prefix = self._prefixes.get((adapter, tokens))
        if prefix is not None:
            self._prefixes.move_to_end((adapter, tokens))
        return prefix

    def put(self, adapter: str | None, prefix: Prefix) -> None:
        """Keep a prefix; others go when the budget is exceeded, and so does one larger than it."""
        key = (adapter, prefix.tokens)
        assert key not in self._prefixes
        self._prefixes[key] = prefix
        self._bytes += prefix.size_bytes
        while self._bytes > self._budget:
            _, dropped = self._prefixes.popitem(last=False)
            self._bytes -= dropped.size_bytes

    @property
    def size_bytes(self) -> int:
        """Memory in use."""
        return self._bytes
