"""Who may write: the rows of a step, shared between tenants and between what is urgent and what is not."""

from collections.abc import Sequence

from manyicl_core.inference.fair_queue import FairQueue
from manyicl_core.inference.tickets import Ticket


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

    def are_left(self, ticket: Ticket, others: Sequence[Ticket]) -> bool:
        """Whether there is one for an answer to ``ticket`` beside those to ``others``, who may come more than once."""
        if ticket.is_bulk:
            bulk = sum(other.is_bulk for other in others)
            return len(others) < self._most and bulk < max(1, self._most - self._quarter)
        return len(others) < self._most + (self._quarter if self.is_new(ticket, others) else 0)

    def is_new(self, ticket: Ticket, others: Sequence[Ticket]) -> bool:
        """Whether its tenant has none of these answers, bulk apart, and has used no more than who has."""
        tenants = {other.request.tenant for other in others if not other.is_bulk}
        tenant = ticket.request.tenant
        return not ticket.is_bulk and tenant not in tenants and self._used.has_used_least(tenant, tenants)
