"""Pages of other origins may call the API from a browser where the installation names their origins."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

_METHODS = ("GET", "POST", "DELETE")
_READ_HEADERS = (
    "x-request-id",
    "retry-after-ms",
    "x-should-retry",
    "idempotent-replayed",
    "content-disposition",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
)


def let_pages_call(app: FastAPI, origins: str) -> None:
    """Answer preflights of ``origins``, which are separated by commas, and let their pages read every answer.

    Added last, so that refusals and mistakes are read too. A page sends its key itself: no cookies go with it.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.strip().rstrip("/") for origin in origins.split(",") if origin.strip()],
        allow_methods=_METHODS,
        allow_headers=["*"],  # the client tells about itself in a dozen
        expose_headers=_READ_HEADERS,
    )
