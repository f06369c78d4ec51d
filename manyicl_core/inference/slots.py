"""The rows' own keys and values, one slot a row, and the forward pass over what they add."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch

from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.row_attention import Behind, Block, Layers, Level, Pass

_SPARE_PLACES = 64
"""So few pads are always cheaper than one product more."""


class Slots:
    """Slots for rows; the first ``len(lengths)`` are taken.

    Args:
        layers: room for the rows, per layer ``[rows, kv heads, tokens, head size]``; it is made larger when needed.
    """

    def __init__(self, model: LanguageModel, layers: Layers | None = None) -> None:
        self._model = model
        self._layers = layers if layers is not None else model.new_layers(1, 1)
        self.lengths: list[int] = []

    @property
    def size_bytes(self) -> int:
        """Memory of all slots."""
        return sum(part.nbytes for layer in self._layers for part in layer)

    def drop(self, slot: int) -> None:
        """Free a slot; the last row moves into it."""
        last = len(self.lengths) - 1
        if slot != last:
            self._copy(last, slot, self.lengths[last])
            self.lengths[slot] = self.lengths[last]
        self.lengths.pop()

    def copy(self, slots: Sequence[int], room: int) -> "Slots":
        """New slots that begin with what those of these numbers hold, with room for so many tokens more."""
        reach = max(self.lengths[slot] for slot in slots)
        index = torch.tensor(slots, device=self._model.device)
        layers = self._model.new_layers(len(slots), reach + room)
        for ours, theirs in zip(layers, self._layers, strict=True):
            for part, other in zip(ours, theirs, strict=True):
                part[:, :, :reach] = other[index, :, :reach]
        copied = Slots(self._model, layers)
        copied.lengths = [self.lengths[slot] for slot in slots]
        return copied

    def take(self) -> None:
        """Take a new, empty last slot."""
        self.lengths.append(0)

    def contents(self, slot: int) -> Layers:
        """A row's own keys and values, as they are stored: per layer ``[1, kv heads, tokens, head size]``."""
        rows, tokens = slice(slot, slot + 1), slice(0, self.lengths[slot])
        return tuple((keys[rows, :, tokens], values[rows, :, tokens]) for keys, values in self._layers)

    def forget(self, slot: int, tokens: int) -> None:
        """Let go of a row's last tokens; it keeps its slot."""
        self.lengths[slot] -= tokens

    def run(
        self, adapters: Sequence[str | None], new: Sequence[Sequence[int]], prefixes: Sequence[Prefix]
    ) -> torch.Tensor:
        """Run the rows' new tokens, at least one a row, after what each has already.

        Args:
            adapters: of each row; None: the base alone. So are ``new`` and ``prefixes``.

        Returns:
            the last states of all new tokens, end to end, ``[tokens, hidden]``.
        """
        counts = [len(tokens) for tokens in new]
        assert len(counts) == len(self.lengths) and min(counts) > 0
        starts = self.lengths
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        self._make_room(len(counts), max(ends))
        length = torch.tensor(counts)
        row = torch.arange(len(counts)).repeat_interleave(length)
        first = torch.tensor(starts) - (length.cumsum(0) - length)
        place = torch.arange(len(row)) + first.repeat_interleave(length)
        before = torch.tensor([len(prefix.tokens) for prefix in prefixes])
        device = self._model.device
        rows = Pass(
            slots=self._layers,
            row=row.to(device),
            place=place.to(device),
            blocks=tuple(_blocks(starts, counts, self._model.group, device)),
            levels=tuple(_levels([prefix.chain for prefix in prefixes], counts, device)),
        )
        tokens = torch.tensor([token for tokens in new for token in tokens], device=device)
        positions = (place + before[row]).to(device)
        states = self._model.states(tokens, positions, adapters, counts, rows)
        if not rows.is_exact:  # which is looked at once a pass: on a GPU each look waits for it
            rows = rows.again()
            states = self._model.states(tokens, positions, adapters, counts, rows)
            assert rows.is_exact
        self.lengths = ends
        return states

    def _copy(self, source: int, target: int, length: int) -> None:
        for layer in self._layers:
            for part in layer:
                part[target, :, :length] = part[source, :, :length]

    def _make_room(self, rows: int, tokens: int) -> None:
        """At least double what is too small: growing is then rare."""
        had_rows, had_tokens = self._layers[0][0].shape[0], self._layers[0][0].shape[2]
        if rows <= had_rows and tokens <= had_tokens:
            return
        rows = max(rows, 2 * had_rows) if rows > had_rows else had_rows
        tokens = max(tokens, 2 * had_tokens) if tokens > had_tokens else had_tokens
        larger = self._model.new_layers(rows, tokens)
        reach = max(self.lengths, default=0)
        for ours, theirs in zip(larger, self._layers, strict=True):
            for part, other in zip(ours, theirs, strict=True):
                part[:had_rows, :, :reach] = other[:, :, :reach]
        self._layers = larger


def _blocks(starts: Sequence[int], counts: Sequence[int], group: int, device: torch.device) -> list[Block]:
    """Cut the rows into runs of similar numbers of new tokens: at most about half of a block is pads."""
    cuts = [0]
    width = tokens = 0
    for row, count in enumerate(counts):
        width, tokens = max(width, count), tokens + count
        if width * (row + 1 - cuts[-1]) > 2 * tokens + _SPARE_PLACES:
            cuts.append(row)
            width, tokens = count, count
    offset = 0
    blocks = []
    for begin, end in zip(cuts, [*cuts[1:], len(counts)], strict=True):
        rows = slice(begin, end)
        blocks.append(_block(rows, offset, torch.tensor(starts[rows]), torch.tensor(counts[rows]), group, device))
        offset += sum(counts[rows])
    return blocks


def _block(
    rows: slice, offset: int, start: torch.Tensor, count: torch.Tensor, group: int, device: torch.device
) -> Block:
    width, reach = int(count.max()), int((start + count).max())
    place = torch.arange(width)
    hidden = torch.arange(reach) > (start[:, None] + place)[:, :, None]
    spread = kept = None
    if int(count.min()) < width:
        real = place < count[:, None]
        # A pad repeats its row's last token; what comes of it is dropped.
        spread = (count.cumsum(0) - count)[:, None] + torch.minimum(place, count[:, None] - 1)
        spread, kept = spread.flatten().to(device), real.flatten().nonzero()[:, 0].to(device)
    return Block(
        rows=rows,
        tokens=slice(offset, offset + int(count.sum())),
        width=width,
        reach=reach,
        hidden=hidden.repeat_interleave(group, dim=1)[:, None].to(device) if bool(hidden.any()) else None,
        spread=spread,
        kept=kept,
    )


def _levels(chains: Sequence[Sequence[Prefix]], counts: Sequence[int], device: torch.device) -> Iterator[Level]:
    """The rows' first prefixes, then the second ones of those that have two, and so on."""
    ends = list(accumulate(counts))
    for depth in range(max(map(len, chains))):
        groups: dict[int, list[int]] = {}
        for row, chain in enumerate(chains):
            if depth < len(chain):
                groups.setdefault(id(chain[depth]), []).append(row)
        sizes = [sum(counts[row] for row in rows) for rows in groups.values()]
        behind = tuple(
            Behind(chains[rows[0]][depth].layers, slice(end - size, end))
            for rows, size, end in zip(groups.values(), sizes, accumulate(sizes), strict=True)
        )
        if len(groups) == 1 and sizes == [ends[-1]]:
            yield Level(None, behind)
        else:
            order = [
                token for rows in groups.values() for row in rows for token in range(ends[row] - counts[row], ends[row])
            ]
            yield Level(torch.tensor(order, device=device), behind)
