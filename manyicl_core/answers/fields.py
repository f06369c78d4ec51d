"""What the bodies of chat completions and completions share."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from manyicl_core.request_body import RequestBody
from manyicl_core.store.contexts.schemas import ManyiclChat

_SMALLEST_TOP_P = 1e-6
"""What OpenAI's 0 means, the most likely token alone; engines want more than 0."""


def _is_unicode(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("this holds half a character (a lone surrogate); send valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]
_Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
_TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class StreamOptions(RequestBody):
    """OpenAI's ``stream_options``; obfuscation would only pad the chunks, and is left out."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampled(RequestBody):
    """Which model answers, how it chooses its tokens, and where the answer ends."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[_TokenId, _Bias], Field(max_length=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    manyicl: ManyiclChat | None = None
    user: Any = None

    @property
    def usage_asked(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def regex(self) -> str | None:
        """What the answer must match."""
        return None if self.manyicl is None else self.manyicl.regex

    @property
    def stops(self) -> list[str]:
        """The stop strings; an empty one stops nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    def structured_outputs(self) -> dict[str, Any] | None:
        """What the engine is told of the answer's grammar; None: free text."""
        return None if self.regex is None else {"regex": self.regex}

    def sampling(self) -> dict[str, Any]:
        """What the engine is told of this, in its own words."""
        request = {
            "n": self.n or 1,
            "top_p": 1.0 if self.top_p is None else max(self.top_p, _SMALLEST_TOP_P),
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "logit_bias": self.logit_bias,
            "seed": self.seed,
            "stop": self.stops,
        }
        return {name: value for name, value in request.items() if value is not None}
