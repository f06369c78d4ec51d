"""Label scores that were asked for: some of them at a time, a pass of the model each time."""

from collections import deque
from collections.abc import Callable, Iterator

from manyicl_core.inference.fair_queue import FairQueue
from manyicl_core.inference.requests import LabelScoring
from manyicl_core.inference.scoring import LabelQuery, Scoring
from manyicl_core.inference.tickets import Ticket

_MOST = 32
_MOST_BULK = 24
_MOST_LABELS = 256
"""In one batch, unless a single query has more."""


class Scorings:
    """Tickets whose labels are scored.

    Args:
        waiting: in whose order their turn comes.
        charge: told of the tokens that were scored for a ticket.
    """

    def __init__(self, waiting: FairQueue[Ticket], charge: Callable[[Ticket, int, str], None]) -> None:
        self._waiting = waiting
        self._charge = charge
        self._tickets: deque[Ticket] = deque()
        # Those of them that are scored together now.
        self._batch: tuple[list[Ticket], Scoring] | None = None

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def has_room(self, ticket: Ticket) -> bool:
        """Whether one more may be scored; bulk leaves a quarter to the others."""
        bulk = sum(scored.is_bulk for scored in self._tickets)
        return len(self._tickets) < _MOST and not (ticket.is_bulk and bulk >= _MOST_BULK)

    def add(self, ticket: Ticket) -> None:
        """Score this ticket's labels."""
        self._tickets.append(ticket)

    def take_out(self, ticket: Ticket) -> None:
        """Tell no scores of this one; it is scored on with those that it shares passes with, if any is left."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
        if self._batch is not None and not any(scored in self._tickets for scored in self._batch[0]):
            self._batch = None

    @property
    def batch(self) -> list[Ticket]:
        """Those that are scored together now, and whose weights are needed: some may have been taken out."""
        return [] if self._batch is None else self._batch[0]

    @property
    def next(self) -> list[Ticket]:
        """Whose turn it is."""
        if self._batch is None:
            self._batch = self._next_batch()
        return self._batch[0]

    def advance(self) -> list[tuple[Ticket, list[float]]]:
        """One pass of the next ones; between two, others write.

        Returns:
            the scores of those that are done, which are in it no more.
        """
        assert self._batch is not None
        batch, scoring = self._batch
        scoring.advance()
        if not scoring.is_complete:
            return []
        self._batch = None
        scored = zip(batch, scoring.scores, strict=True)
        done = [(ticket, scores) for ticket, scores in scored if ticket in self._tickets]
        for ticket, _ in done:
            assert isinstance(ticket.request, LabelScoring)
            self._charge(ticket, len(ticket.query) + sum(len(label) - 1 for label in ticket.request.labels), "scored")
            self._tickets.remove(ticket)
        return done

    def _next_batch(self) -> tuple[list[Ticket], Scoring]:
        """Some over the same language model, labels bounded, or one that is to be alone; in the queue's order."""
        tickets = sorted(self._tickets, key=lambda one: self._waiting.order(one.request.tenant, one.request.priority))
        assert tickets[0].model is not None
        model = tickets[0].model.language_model
        batch: list[Ticket] = []
        queries: list[LabelQuery] = []
        labels = 0
        for ticket in tickets:
            assert ticket.model is not None and isinstance(ticket.request, LabelScoring)
            labels += len(ticket.request.labels)
            shares = ticket.model.language_model is model and not (ticket.is_alone or tickets[0].is_alone)
            if not batch or (shares and labels <= _MOST_LABELS):
                batch.append(ticket)
                queries.append(LabelQuery(ticket.model.adapter, ticket.prefix, ticket.query, ticket.request.labels))
        return batch, Scoring(model, queries)
