"""A request on its way through the engine."""

import time
from dataclasses import dataclass, field

from manyicl_core.inference.language_model import TunedModel
from manyicl_core.inference.prefix import EMPTY_PREFIX, Prefix, PrefixKey
from manyicl_core.inference.requests import Generation, LabelScoring
from manyicl_core.inference.text import TextStream


@dataclass(slots=True, eq=False)
class Ticket:
    """A request, and how far it is.

    Attributes:
        waits: it has not begun; set in the engine's thread.
        lacks_since: when it first could not begin because of what others use.
        cancelled: nobody waits for the answer any more; set from any thread.
        held: the key of the context that it stands behind, while that must stay.
        set_aside: bytes of the store's budget, for what of its prompt is a prefix of its own.
        cached: tokens of the prompt that needed no work.
        texts: of each answer that is being written.
        context_key: of the prompt's context; at least one token is left for the query, whose logits begin the answer.
    """

    request: Generation | LabelScoring
    waits: bool = True
    lacks_since: float | None = None
    cancelled: bool = False
    model: TunedModel | None = None
    held: PrefixKey | None = None
    set_aside: int = 0
    prefix: Prefix = EMPTY_PREFIX
    cached: int = 0
    texts: list[TextStream] = field(default_factory=list)
    unfinished: int = 0
    context_key: PrefixKey | None = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        tokens = request.prompt[: min(request.prefix_tokens, len(request.prompt) - 1)]
        self.context_key = PrefixKey(request.adapter, request.salt, tokens) if tokens else None

    @property
    def query(self) -> list[int]:
        """The tokens behind the prefix."""
        return list(self.request.prompt[len(self.prefix.tokens) :])

    @property
    def echoes(self) -> bool:
        """Whether the prompt's own log-probabilities are asked for."""
        return isinstance(self.request, Generation) and self.request.echo

    @property
    def is_bulk(self) -> bool:
        """Whether it takes what others leave."""
        return self.request.priority > 0

    @property
    def is_alone(self) -> bool:
        """Whether no other request shares its passes: their numbers would round with it, and its own with them."""
        request = self.request
        return request.alone if isinstance(request, LabelScoring) else request.sampling.seed is not None

    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more, or its deadline has passed."""
        return self.cancelled or (self.request.deadline is not None and time.monotonic() > self.request.deadline)
