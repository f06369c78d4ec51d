"""Serve the api: ``python -m api.serve``; settings come from the environment."""

import gc

import uvicorn

from api.app import create_app
from manyicl_core.logging import configure_logging
from manyicl_core.settings import get_settings

_GRACE_SECONDS = 5


def main() -> None:
    """Serve until stopped; answers that are being written then have some seconds to end."""
    settings = get_settings()
    configure_logging("api", settings.log_json)
    app = create_app()
    # All of it stays: to look through it again and again stops every request for a tenth of a second.
    gc.freeze()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


if __name__ == "__main__":
    main()
