"""Requests and tokens a minute of a project, counted in the broker.

A window of a minute begins with its first request. Tokens are counted when an answer is complete,
so the requests that run at the same time may go beyond the quota, and the next ones wait for it.
While the broker is away nothing is limited: an api that answers is worth more than an exact count.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError

from manyicl_core.errors import Overloaded

_TIMEOUT_SECONDS = 0.5
_LEFT_ALONE_SECONDS = 5.0
"""After a failure, so that not every request waits for a broker that is away."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """The current minute of one quota; ``reset_seconds`` is how long it still lasts."""

    limit: int
    remaining: int
    reset_seconds: int


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may be answered, and how the project stands."""

    admitted: bool
    requests: Window
    tokens: Window

    def headers(self) -> dict[str, str]:
        """OpenAI's ``x-ratelimit-*`` headers."""
        headers: dict[str, str] = {}
        for what, window in (("requests", self.requests), ("tokens", self.tokens)):
            minutes, seconds = divmod(window.reset_seconds, 60)
            headers |= {
                f"x-ratelimit-limit-{what}": str(window.limit),
                f"x-ratelimit-remaining-{what}": str(window.remaining),
                f"x-ratelimit-reset-{what}": f"{minutes}m{seconds}s" if minutes else f"{seconds}s",
            }
        return headers

    def check(self) -> None:
        """Refuse the request unless it is admitted.

        Raises:
            Overloaded: the project has no requests or no tokens left in this minute.
        """
        if self.admitted:
            return
        what = "requests" if self.tokens.remaining else "tokens"
        window = self.requests if what == "requests" else self.tokens
        raise Overloaded(
            f"The project's quota {what}_per_minute is used up: {window.limit} {what} a minute; try again in "
            f"{window.reset_seconds} s, send less at once, or ask the operator of this installation for more "
            "(`manyicl quotas set`)",
            max(window.reset_seconds, 1) * 1000,
            "rate_limit_exceeded",
        )


class RateLimits:
    """The counters of all projects, in the broker at ``url``."""

    def __init__(self, url: str) -> None:
        storage = RedisStorage(url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS)
        self._limiter = FixedWindowRateLimiter(storage)
        self._left_alone_until = float("-inf")
        self._spending = ThreadPoolExecutor(1, "rate-limits")

    def admit(self, project_id: str, requests_per_minute: int, tokens_per_minute: int) -> Admission | None:
        """Count a request; None when the broker does not answer: nothing is limited then."""
        if time.monotonic() < self._left_alone_until:
            return None
        requests, tokens = RateLimitItemPerMinute(requests_per_minute), RateLimitItemPerMinute(tokens_per_minute)
        try:
            admitted = self._limiter.hit(requests, "requests", project_id)
            windows = self._window(requests, "requests", project_id), self._window(tokens, "tokens", project_id)
        except RedisError as error:
            self._leave_alone(error)
            return None
        return Admission(admitted and windows[1].remaining > 0, *windows)

    def spend(self, project_id: str, tokens_per_minute: int, tokens: int) -> None:
        """Count an answer's tokens, in another thread: no answer waits for the broker."""
        self._spending.submit(self._spend, project_id, tokens_per_minute, tokens)

    def close(self) -> None:
        """Count what is left and end."""
        self._spending.shutdown()

    def _spend(self, project_id: str, tokens_per_minute: int, tokens: int) -> None:
        if time.monotonic() < self._left_alone_until:
            return
        try:
            self._limiter.hit(RateLimitItemPerMinute(tokens_per_minute), "tokens", project_id, cost=tokens)
        except RedisError as error:
            self._leave_alone(error)

    def _window(self, item: RateLimitItemPerMinute, what: str, project_id: str) -> Window:
        stats = self._limiter.get_window_stats(item, what, project_id)
        return Window(item.amount, stats.remaining, max(0, round(stats.reset_time - time.time())))

    def _leave_alone(self, error: RedisError) -> None:
        self._left_alone_until = time.monotonic() + _LEFT_ALONE_SECONDS
        _log.warning("rate_limits_off", reason=str(error), seconds=_LEFT_ALONE_SECONDS)
