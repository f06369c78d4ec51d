"""Prefixes in the making: contexts, and what is too long of a prompt to be a row."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from manyicl_core.inference.answer import TokenLogprob
from manyicl_core.inference.compilation import Compilation
from manyicl_core.inference.decoding import LONGEST_ROW
from manyicl_core.inference.prefix import Prefix, PrefixKey
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.requests import ContextTooLarge, Generation
from manyicl_core.inference.scoring import following_logprobs
from manyicl_core.inference.tickets import Ticket

_MOST = 2
"""At once: a tenant's many new contexts do not go before another's one."""
_CHUNK = {"cpu": 128, "cuda": 512}
"""Tokens that are compiled at a time. Answers wait meanwhile, and on a CPU more at once are no faster.

Always the same places, whatever else there is to do: another cut would round other numbers, and a
prefix, with all that is written behind it, would depend on who else was there (docs/decisions/0024).
"""


@dataclass(slots=True, eq=False)
class Making:
    """A prefix in the making for a ticket: its context (with a key), or the rest of a long prompt.

    Attributes:
        set_aside: bytes of the store's budget.
        logprobs: of the prompt's tokens so far, for a ticket that echoes.
    """

    ticket: Ticket
    key: PrefixKey | None
    compilation: Compilation
    set_aside: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    is_unwanted: bool = False


class Makings:
    """A few prefixes in the making, a chunk of each in turn; contexts are kept in the store.

    Args:
        charge: told of the tokens that were compiled for a ticket.
    """

    def __init__(self, prefixes: PrefixStore, charge: Callable[[Ticket, int, str], None]) -> None:
        self._prefixes = prefixes
        self._charge = charge
        self._makings: deque[Making] = deque()

    def __len__(self) -> int:
        return len(self._makings)

    def __iter__(self) -> Iterator[Ticket]:
        return (making.ticket for making in self._makings)

    def has_place(self, ticket: Ticket) -> bool:
        """Whether a prefix for it can be begun; bulk leaves a place to the others."""
        bulk = any(making.ticket.is_bulk for making in self._makings)
        return len(self._makings) < _MOST and not (ticket.is_bulk and bulk)

    def makes(self, key: PrefixKey) -> bool:
        """Whether this context is being made."""
        return any(making.key == key for making in self._makings)

    def forget(self, key: PrefixKey) -> None:
        """Keep this context no longer than its ticket needs it."""
        for making in self._makings:
            making.is_unwanted |= making.key == key

    def will_be_needed(self, ticket: Ticket, key: PrefixKey | None) -> bool:
        """Whether a prefix must be made for a ticket that has not begun, its context or what is behind that."""
        if key is None:
            return self.is_needed(ticket)
        return len(ticket.request.prompt) - len(key.tokens) > LONGEST_ROW or not self._prefixes.has(key)

    @staticmethod
    def is_needed(ticket: Ticket) -> bool:
        """Whether what is left of the prompt must be a prefix before there is an answer."""
        return ticket.echoes or len(ticket.query) > LONGEST_ROW

    def begin_context(self, ticket: Ticket, key: PrefixKey) -> bool:
        """Make a ticket's context; False: there is no memory for it now, as others hold it.

        Raises:
            ContextTooLarge: it is larger than all contexts together may be.
        """
        assert ticket.model is not None
        size = len(key.tokens) * ticket.model.language_model.bytes_a_token
        if size > self._prefixes.budget_bytes:
            raise ContextTooLarge(
                f"the context takes {size / 2**20:.0f} MiB and all contexts together may take "
                f"{self._prefixes.budget_bytes / 2**20:.0f}; raise MANYICL_PREFIX_CACHE_BYTES or lower max_shots"
            )
        # Found before room is made: it may have to leave, but not before it is copied.
        start = self._prefixes.longest_start(key)
        start = start.start(len(start.tokens) - len(start.tokens) % _chunk(ticket))
        if not self._prefixes.set_aside(size):
            return False
        ticket.cached = len(start.tokens)
        try:
            compilation = Compilation(ticket.model, key.tokens, start)
        except BaseException:
            self._prefixes.give_back(size)
            raise
        self._makings.append(Making(ticket, key, compilation, size))
        return True

    def has_memory(self, ticket: Ticket) -> bool:
        """Set memory aside for the rest of a prompt; False: there is none now, as others hold it.

        The longest prompt is let in when nobody else is: it then has all there is.
        """
        assert ticket.model is not None and not ticket.set_aside
        a_token = ticket.model.language_model.bytes_a_token
        free = self._prefixes.budget_bytes - len(ticket.prefix.tokens) * a_token
        size = max(0, min((len(ticket.request.prompt) - len(ticket.prefix.tokens)) * a_token, free))
        if not self._prefixes.set_aside(size):
            return False
        ticket.set_aside = size
        return True

    def begin_rest(self, ticket: Ticket) -> None:
        """Make a prefix of all that is left of a prompt, but for the last token if that begins an answer.

        Behind a context that was made a moment ago there may be no memory to set aside: it goes on all the same.
        """
        assert ticket.model is not None
        tokens = ticket.request.prompt if ticket.echoes else ticket.request.prompt[:-1]
        self._makings.append(Making(ticket, None, Compilation(ticket.model, tokens, before=ticket.prefix)))

    @property
    def next(self) -> Ticket:
        """Whose turn it is."""
        return self._makings[0].ticket

    def advance(self) -> tuple[Ticket, Prefix, list[TokenLogprob]] | None:
        """Run a chunk of the first one; then the next one's turn comes.

        Returns:
            if it is done: whose it was, the prefix, which the ticket now holds if it is kept, and
            the log-probabilities of its tokens, where the ticket echoes.
        """
        making = self._makings[0]
        if making.compilation.left:  # else this is its second try to be kept
            self._run_chunk(making, _chunk(making.ticket))
        self._makings.rotate(-1)
        if making.compilation.left:
            return None
        prefix = making.compilation.prefix()
        if making.key is not None:
            prefix = self._prefixes.put(making.key, prefix)
            making.ticket.held = making.key
            if making.is_unwanted:
                self._prefixes.forget(making.key)
        self._makings.remove(making)
        return making.ticket, prefix, making.logprobs

    def take_out(self, ticket: Ticket) -> None:
        """Stop what is made for a ticket."""
        for making in [making for making in self._makings if making.ticket is ticket]:
            self._makings.remove(making)
            self._prefixes.give_back(making.set_aside)

    def _run_chunk(self, making: Making, most: int) -> None:
        ticket, request = making.ticket, making.ticket.request
        done = making.compilation.done
        states = making.compilation.advance(most)
        self._charge(ticket, making.compilation.done - done, "compiled")
        if not (isinstance(request, Generation) and request.echo):
            return
        following = request.prompt[done + 1 : done + 1 + len(states)]
        if not following:
            return
        assert ticket.model is not None
        top = request.sampling.logprobs or 0
        try:
            model = ticket.model.language_model
            making.logprobs += following_logprobs(model, states[: len(following)], following, top)
        except BaseException:
            making.compilation.done = done  # without memory the chunk runs again
            raise


def _chunk(ticket: Ticket) -> int:
    assert ticket.model is not None
    return _CHUNK[ticket.model.language_model.device.type]
