"""Who may write: the rows of a step, shared between tenants and between what is urgent and what is not."""

import time
from collections.abc import Sequence

from manyicl_core.inference.fair_queue import FairQueue
from manyicl_core.inference.tickets import Ticket

PATIENCE_SECONDS = 5.0
"""So long a request lets others go before it that need less memory."""


class Places:
    """For answers that are written at the same time.

    Bulk leaves a quarter of the places. There is a quarter more for tenants who write nothing yet, so
    that nobody waits for the end of another one's long answers.

    Args:
        most: places, without that quarter.
        used: what each tenant has used.
    """

    def __init__(self, most: int, used: FairQueue[Ticket]) -> None:
        self._most = most
        self._quarter = max(1, most // 4)
        self._used = used
        self._starving: Ticket | None = None

    def are_left(self, ticket: Ticket, others: Sequence[Ticket]) -> bool:
        """Whether there is one for an answer to ``ticket`` beside those to ``others``, who may come more than once."""
        if ticket.is_bulk:
            bulk = sum(other.is_bulk for other in others)
            return len(others) < self._most and bulk < max(1, self._most - self._quarter)
        return len(others) < self._most + (self._quarter if self.is_new(ticket, others) else 0)

    def may_be_passed_by(self, ticket: Ticket) -> bool:
        """Whether its tenant's next ones may begin before it: for a while, or it would not be its turn for ever."""
        now = time.monotonic()
        ticket.lacks_since = now if ticket.lacks_since is None else ticket.lacks_since
        return now - ticket.lacks_since < PATIENCE_SECONDS

    def lacks_memory(self, ticket: Ticket) -> None:
        """It could begin but for weights or contexts that others use; after a while nobody begins before it.

        Nobody but who is more urgent, and may then come to wait in the same way.
        """
        starving = self._starving
        is_first = starving is None or ticket.request.priority < starving.request.priority
        if is_first and not self.may_be_passed_by(ticket):
            self._starving = ticket

    def are_kept_from(self, ticket: Ticket) -> bool:
        """Whether another one, no less urgent, waits until what it needs is free."""
        starving = self._starving
        if starving is not None and (not starving.waits or starving.is_over()):
            self._starving = starving = None
        return starving not in (None, ticket) and starving.request.priority <= ticket.request.priority

    def is_new(self, ticket: Ticket, others: Sequence[Ticket]) -> bool:
        """Whether its tenant has none of these answers, bulk apart, and has used no more than who has."""
        tenants = {other.request.tenant for other in others if not other.is_bulk}
        tenant = ticket.request.tenant
        return not ticket.is_bulk and tenant not in tenants and self._used.has_used_least(tenant, tenants)
