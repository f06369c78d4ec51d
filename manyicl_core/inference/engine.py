"""The engine: what waits, what is compiled, scored and decoded, one pass of the model at a time.

Requests over different contexts, adapters and the base model share passes; they join and leave
between any two. A prefix is compiled in chunks between the others' steps.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

import structlog
import torch

from manyicl_core.inference.adapters import Adapters
from manyicl_core.inference.answer import Answer
from manyicl_core.inference.decoding import Decoder, Row
from manyicl_core.inference.drafts import pass_worth
from manyicl_core.inference.fair_queue import FairQueue, Start
from manyicl_core.inference.guides import guide_of
from manyicl_core.inference.language_model import LanguageModel
from manyicl_core.inference.makings import Makings
from manyicl_core.inference.metrics import ROWS, TOKENS, WAITING
from manyicl_core.inference.places import Places
from manyicl_core.inference.prefix import EMPTY_PREFIX, PrefixKey
from manyicl_core.inference.prefix_store import PrefixStore
from manyicl_core.inference.requests import (
    DeadlineExceeded,
    Delta,
    Event,
    Generation,
    LabelScores,
    LabelScoring,
    OutOfMemory,
    PromptLogprobs,
    Refusal,
)
from manyicl_core.inference.scorings import Scorings
from manyicl_core.inference.text import TextStream
from manyicl_core.inference.tickets import Ticket
from manyicl_core.inference.vocabulary import Vocabulary

_log = structlog.get_logger(__name__)

_AWAITED_A_STEP = 8
"""Contexts from the disk: where memory is short, one that has come may have to make room for the next, and so on."""


class Engine:
    """A base model with its adapters and prefixes. Not thread-safe: one thread calls it.

    Args:
        max_rows: answers that are written at the same time; a quarter more for tenants who have none among them.
        wake: called, in any thread, when ``step`` may find work that it did not see before.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        adapters: Adapters,
        prefixes: PrefixStore,
        max_rows: int = 32,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._adapters = adapters
        self._prefixes = prefixes
        self._waiting: FairQueue[Ticket] = FairQueue()
        self._places = Places(max_rows, self._waiting)
        self._makings = Makings(prefixes, self._charge)
        self._scorings = Scorings(self._waiting, self._charge)
        self._decoders: dict[LanguageModel, Decoder] = {}
        # Rows that share no passes with others, each with a decoder of its own; whose turn is next comes first.
        self._alone: OrderedDict[Row, Decoder] = OrderedDict()
        self._rows: dict[Row, tuple[Ticket, int]] = {}
        # Answers of requests that have begun, for which no row is free yet.
        self._unwritten: deque[tuple[Ticket, int]] = deque()
        self._told: list[tuple[Ticket, Event]] = []
        self.wake: Callable[[], None] = lambda: None

    @property
    def max_tokens(self) -> int:
        """The longest prompt and answer together."""
        return self._model.max_tokens

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return self._model.vocabulary

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    def submit(self, ticket: Ticket) -> None:
        """Answer this, when its turn comes."""
        self._waiting.push(ticket, ticket.request.tenant, ticket.request.priority)

    def forget(self, key: PrefixKey) -> None:
        """Keep a context's prefix no longer."""
        self._makings.forget(key)
        self._prefixes.forget(key)

    def step(self) -> tuple[bool, list[tuple[Ticket, Event]]]:
        """Do the next piece of work; says whether there was any, and what to tell to whom."""
        self._sweep()
        self._waiting.offer(self._start)
        for _ in range(_AWAITED_A_STEP):
            if not self._prefixes.await_one():
                break
            self._waiting.offer(self._start)
        WAITING.set(len(self._waiting))
        worked = bool(self._makings or self._scorings or self._rows or self._unwritten)
        if self._makings:
            self._guarded(self._compile, [self._makings.next])
        if self._scorings:
            self._guarded(self._score, self._scorings.next)
        self._fill_rows()
        for decoder in [decoder for decoder in self._decoders.values() if decoder.rows]:
            self._guarded(partial(self._decode, decoder), [self._rows[row][0] for row in decoder.rows])
        if self._alone:
            self._decode_one_alone()
        told, self._told = self._told, []
        return worked, told

    # Starting

    def _start(self, ticket: Ticket) -> Start:
        """Let a waiting ticket begin, if what it needs is there."""
        started = Start.BEGUN  # one that fails is over, and waits no more either

        def begin() -> None:
            nonlocal started
            started = self._begin(ticket)

        self._guarded(begin, [ticket])
        ticket.waits = started is not Start.BEGUN
        if ticket.waits:
            ticket.model = None  # or a whole model that others replace would stay in memory with it
        return started

    def _begin(self, ticket: Ticket) -> Start:
        self._let_go(ticket)  # of what a first try without memory held
        if self._places.are_kept_from(ticket):
            return Start.UNREADY  # the one that they are kept for may stand behind it
        if not self._has_room(ticket):
            return Start.FULL
        # A text of which every token's probability is asked must run as a whole.
        key = None if ticket.echoes else ticket.context_key
        if key is not None and self._makings.makes(key):
            return Start.UNREADY
        # Before weights and contexts make others leave memory.
        if self._makings.will_be_needed(ticket, key) and not self._makings.has_place(ticket):
            return self._lacks_place(ticket)
        ticket.model = self._adapters.get(ticket.request.adapter, self._adapters_in_use(), self.wake)
        if ticket.model is None:
            return self._lacks_memory(ticket) if self._adapters.has_fetched(ticket.request.adapter) else Start.UNREADY
        return self._begin_prompt(ticket, key)

    def _begin_prompt(self, ticket: Ticket, key: PrefixKey | None) -> Start:
        if key is not None and self._prefixes.comes(key, self.wake):
            return Start.UNREADY
        is_new = key is not None and not self._stand_behind(ticket, key)
        if (is_new or self._makings.is_needed(ticket)) and not self._makings.has_place(ticket):
            return self._lacks_place(ticket)
        if key is not None and is_new:
            if self._prefixes.start_comes(key, self.wake):
                return Start.UNREADY
            return Start.BEGUN if self._makings.begin_context(ticket, key) else self._lacks_memory(ticket)
        if self._makings.is_needed(ticket) and not self._makings.has_memory(ticket):
            return self._lacks_memory(ticket)
        self._go_on(ticket)
        return Start.BEGUN

    def _lacks_place(self, ticket: Ticket) -> Start:
        """It waits on until a prefix can be begun for it."""
        self._let_go(ticket)
        return Start.UNREADY if self._places.may_be_passed_by(ticket) else Start.FULL

    def _lacks_memory(self, ticket: Ticket) -> Start:
        """It waits on, and holds nothing meanwhile."""
        self._let_go(ticket)
        self._places.lacks_memory(ticket)
        return Start.FULL

    def _has_room(self, ticket: Ticket) -> bool:
        if isinstance(ticket.request, LabelScoring):
            return self._scorings.has_room(ticket)
        writing = [owner for owner, _ in self._rows.values()]
        begun = [*writing, *(owner for owner, _ in self._unwritten)]
        # Whoever has none need not wait until all that others have begun is written.
        return self._places.are_left(ticket, writing if self._places.is_new(ticket, begun) else begun)

    def _stand_behind(self, ticket: Ticket, key: PrefixKey) -> bool:
        """Hold the ticket's context, if it is compiled."""
        prefix = self._prefixes.hold(key)
        if prefix is not None:
            ticket.held, ticket.prefix, ticket.cached = key, prefix, len(prefix.tokens)
        return prefix is not None

    def _go_on(self, ticket: Ticket) -> None:
        """From the context to the query: a long one is made a prefix first, a short one begins its answers."""
        if self._makings.is_needed(ticket):
            self._makings.begin_rest(ticket)
        elif isinstance(ticket.request, LabelScoring):
            self._scorings.add(ticket)
        else:
            self._write_answers(ticket, ticket.request)

    def _write_answers(self, ticket: Ticket, request: Generation) -> None:
        assert ticket.model is not None
        if request.max_tokens == 0:
            self._told += [(ticket, Delta(number, "", 0, ticket.cached, "length")) for number in range(request.n)]
            self._let_go(ticket)
            return
        ticket.unfinished = request.n
        ticket.texts = [
            TextStream(self._vocabulary.texts, list(request.stop_texts), request.prompt) for _ in range(request.n)
        ]
        self._unwritten += [(ticket, number) for number in range(request.n)]

    def _fill_rows(self) -> None:
        """Begin answers while rows are free; a request that fails at it is taken out with all of its answers."""
        while (ticket := self._next_writer()) is not None:
            number = next(number for owner, number in self._unwritten if owner is ticket)
            self._guarded(partial(self._begin_answer, ticket, number), [ticket])

    def _next_writer(self) -> Ticket | None:
        writing = [owner for owner, _ in self._rows.values()]
        waiting = dict.fromkeys(owner for owner, _ in self._unwritten)
        return next((ticket for ticket in waiting if self._places.are_left(ticket, writing)), None)

    def _begin_answer(self, ticket: Ticket, number: int) -> None:
        request, model = ticket.request, ticket.model
        assert isinstance(request, Generation) and model is not None
        answer = Answer(request.sampling, request.max_tokens, request.stop_tokens, guide_of(request), number)
        row = Row(model.adapter, ticket.prefix, ticket.query, answer)
        if ticket.is_alone:
            decoder = Decoder(model.language_model)
            decoder.join(row)
            self._alone[row] = decoder
        else:
            if model.language_model not in self._decoders:
                self._decoders[model.language_model] = Decoder(model.language_model)
            self._decoders[model.language_model].join(row)
        self._rows[row] = ticket, number
        self._unwritten.remove((ticket, number))  # last: without memory all of this is done again

    def _adapters_in_use(self) -> set[str | None]:
        busy = [ticket for ticket, _ in [*self._rows.values(), *self._unwritten]]
        return {ticket.request.adapter for ticket in [*busy, *self._scorings, *self._scorings.batch, *self._makings]}

    # Working

    def _compile(self) -> None:
        finished = self._makings.advance()
        if finished is None:
            return
        ticket, prefix, logprobs = finished
        request = ticket.request
        if isinstance(request, Generation) and request.echo:
            self._told.append((ticket, PromptLogprobs(tuple(logprobs))))
            # The last token runs again, as the query whose logits begin the answer.
            ticket.prefix = prefix.start(len(prefix.tokens) - 1)
            self._guarded(lambda: self._write_answers(ticket, request), [ticket])
        else:
            ticket.prefix = prefix
            self._guarded(lambda: self._go_on(ticket), [ticket])

    def _score(self) -> None:
        for ticket, scores in self._scorings.advance():
            self._told.append((ticket, LabelScores(tuple(scores), ticket.cached)))
            self._let_go(ticket)

    def _decode_one_alone(self) -> None:
        """One pass for one of the rows that share none, in turns: the others wait for no more than that."""
        row, decoder = next(iter(self._alone.items()))
        self._alone.move_to_end(row)
        ticket, _ = self._rows[row]
        # The pass is all its own.
        assert ticket.model is not None
        self._waiting.charge(ticket.request.tenant, pass_worth(ticket.model.language_model.device.type))
        self._guarded(partial(self._decode, decoder), [ticket])

    def _decode(self, decoder: Decoder) -> None:
        ROWS.observe(len(decoder.rows))
        read = {row: len(row.pending) for row in decoder.rows}
        for row, new in decoder.step():
            if row not in self._rows:  # another answer to its request has failed
                continue
            ticket, number = self._rows[row]
            self._charge(ticket, read[row], "decoded")
            self._charge(ticket, len(new) - len(row.pending), "drafted")  # rightly: the pass has read them as well
            if row.error is not None:
                self._refuse([ticket], row.error)
                continue
            self._guarded(partial(self._tell, ticket, number, row, new), [ticket])
            if row not in self._rows:  # its text has failed
                continue
            if row.answer.finish is not None or ticket.texts[number].stopped:
                if row.answer.finish is None:
                    decoder.leave(row)
                self._alone.pop(row, None)
                del self._rows[row]
                ticket.unfinished -= 1
                if not ticket.unfinished:
                    self._let_go(ticket)

    def _tell(self, ticket: Ticket, number: int, row: Row, new: list[int]) -> None:
        """Turn a row's new tokens into text."""
        text, answer = ticket.texts[number], row.answer
        before = written = len(answer.written) - len(new)
        piece = ""
        for token in new:
            written += 1
            if token in answer.stop:
                break
            piece += text.push(token)
            if text.stopped:
                break
        finish = "stop" if text.stopped else answer.finish
        if finish is not None:
            piece += text.flush()
        logprobs = tuple(answer.logprobs[before:written]) if answer.sampling.logprobs is not None else ()
        self._told.append((ticket, Delta(number, piece, written, ticket.cached, finish, logprobs)))

    # Ending

    def _sweep(self) -> None:
        """Take out what nobody waits for any more, and what is too late."""
        over = self._waiting.remove(Ticket.is_over)
        writing = dict.fromkeys(ticket for ticket, _ in [*self._rows.values(), *self._unwritten])
        busy = [*self._makings, *self._scorings, *writing]
        over += [ticket for ticket in busy if ticket.is_over()]
        for ticket in over:
            self._take_out(ticket)
            if not ticket.cancelled:
                self._told.append((ticket, DeadlineExceeded("the answer was not complete at its deadline")))
        # A whole model that nobody uses any more can leave memory; the base model's room stays.
        idle = [model for model, decoder in self._decoders.items() if not decoder.rows and model is not self._model]
        for model in idle:
            del self._decoders[model]

    def _take_out(self, ticket: Ticket) -> None:
        """Of whatever it is in."""
        self._makings.take_out(ticket)
        self._scorings.take_out(ticket)
        self._unwritten = deque(waits for waits in self._unwritten if waits[0] is not ticket)
        for row in [row for row, (owner, _) in self._rows.items() if owner is ticket]:
            assert ticket.model is not None
            decoder = self._alone.pop(row, None) or self._decoders[ticket.model.language_model]
            if row.answer.finish is None:
                decoder.leave(row)
            del self._rows[row]
        self._let_go(ticket)

    def _let_go(self, ticket: Ticket) -> None:
        if ticket.held is not None:
            self._prefixes.release(ticket.held)
            ticket.held = None
        self._prefixes.give_back(ticket.set_aside)
        ticket.set_aside = 0
        ticket.prefix = EMPTY_PREFIX

    def _charge(self, ticket: Ticket, tokens: int, kind: str) -> None:
        TOKENS.labels(kind).inc(tokens)
        self._waiting.charge(ticket.request.tenant, tokens)

    def _guarded(self, work: Callable[[], None], tickets: list[Ticket]) -> None:
        """Do the work; without memory once more after the contexts that nobody uses have gone.

        Whatever goes wrong ends these tickets, never the engine.
        """
        try:
            try:
                work()
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._prefixes.shrink()
                work()
        except Exception as error:  # the other requests go on
            self._refuse(tickets, error)

    def _refuse(self, tickets: list[Ticket], error: Exception) -> None:
        """Take them out, and tell why."""
        if isinstance(error, Refusal):
            refusal = error
        elif _is_out_of_memory(error):
            refusal = OutOfMemory("the machine has no memory left for this request; try again in a moment")
        else:
            _log.error("engine_work_failed", exc_info=error)
            refusal = Refusal(f"the engine failed ({type(error).__name__}); its log has the story")
        for ticket in dict.fromkeys(tickets):
            self._take_out(ticket)
            self._told.append((ticket, refusal))


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch says it on a CPU in words alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
