"""An engine whose steps a test does one by one."""

import threading
from pathlib import Path

from prometheus_client import REGISTRY

from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.answer import Sampling
from manyicl_core.inference.engine import Engine
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_files import PrefixFiles
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.requests import Delta, Event, Generation, LabelScores, LabelScoring, Refusal
from manyicl_core.inference.tickets import Ticket
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.objects import open_store, put_weights

CONTEXT = tuple(range(40, 75))
SHOWN = Sampling(logprobs=0)
"""Greedy, with the ids of the tokens told."""


def counted(kind: str) -> float:
    """How many tokens all engines have compiled, decoded or scored, by their own count."""
    return REGISTRY.get_sample_value("manyicl_tokens_total", {"kind": kind}) or 0.0


def found(store: PrefixStore, key: PrefixKey) -> Prefix | None:
    """What a store has, once it is read from the disk; it is held."""
    read = threading.Event()
    while store.comes(key, read.set):
        assert read.wait(30), "nobody says that it is there"
        read.clear()
    return store.hold(key)


class Driven:
    """An engine, and all that it has told so far, by ticket."""

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        folder: Path,
        budget_bytes: int = 1 << 22,
        rows: int = 32,
        files: PrefixFiles | None = None,
        eight_bits: bool = False,
    ) -> None:
        (folder / "scratch").mkdir(exist_ok=True)
        self._store = open_store(f"file://{folder}/store")
        self.prefixes = PrefixStore(budget_bytes, files, eight_bits)
        self.adapters = Adapters(model, self._store, folder / "scratch", 3)
        self.engine = Engine(model, vocabulary, self.adapters, self.prefixes, rows)
        self.told: dict[Ticket, list[Event]] = {}
        self._woken = threading.Event()
        self.engine.wake = self._woken.set

    def stored(self, folder: Path) -> str:
        """Put weights where the engine finds them; gives their hash."""
        return put_weights(self._store, folder)

    def submit(self, request: Generation | LabelScoring) -> Ticket:
        ticket = Ticket(request)
        self.told[ticket] = []
        self.engine.submit(ticket)
        return ticket

    def step(self) -> bool:
        """One step; whether there was anything to do."""
        worked, told = self.engine.step()
        for ticket, event in told:
            assert not ticket.cancelled, "nobody listens any more"
            self.told[ticket].append(event)
        return worked

    def steps(self, count: int) -> None:
        """So many steps, each with something to do."""
        for _ in range(count):
            assert self.step()

    def finish(self) -> None:
        """Step until there is nothing left to do."""
        while True:
            if self.step():
                continue
            if not self.engine.waiting:
                return
            # Weights or prefixes are on their way, in another thread.
            assert self._woken.wait(30), "the engine waits for nothing"
            self._woken.clear()

    def refusal(self, ticket: Ticket) -> Refusal:
        """The refusal that the ticket ended with."""
        last = self.told[ticket][-1]
        assert isinstance(last, Refusal)
        return last

    def deltas(self, ticket: Ticket) -> list[Delta]:
        """All pieces of a complete answer."""
        events = self.told[ticket]
        for event in events:
            if isinstance(event, Refusal):
                raise event
        return [event for event in events if isinstance(event, Delta)]

    def text(self, ticket: Ticket, index: int = 0) -> str:
        """The whole text of a complete answer; only its last piece says why it ended."""
        pieces = [delta for delta in self.deltas(ticket) if delta.index == index]
        assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        return "".join(piece.text for piece in pieces)

    def tokens(self, ticket: Ticket, index: int = 0) -> list[int]:
        """The tokens of a complete answer whose log-probabilities were asked for."""
        self.text(ticket, index)
        return [entry.token for delta in self.deltas(ticket) if delta.index == index for entry in delta.logprobs]

    def answer(self, request: Generation) -> tuple[str, Delta]:
        """The whole text and the last piece."""
        ticket = self.submit(request)
        self.finish()
        return self.text(ticket), self.deltas(ticket)[-1]

    def scores(self, request: LabelScoring) -> LabelScores:
        ticket = self.submit(request)
        self.finish()
        [event] = self.told[ticket]
        if isinstance(event, Refusal):
            raise event
        assert isinstance(event, LabelScores)
        return event
