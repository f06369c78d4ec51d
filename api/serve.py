"""What ``manyicl api`` serves: the application, with this process's logging set up first."""

import gc

from fastapi import FastAPI

from api.app import create_app
from manyicl_core.logging import configure_logging
from manyicl_core.settings import get_settings


def create_logged_app() -> FastAPI:
    """The factory that uvicorn calls."""
    configure_logging("api", get_settings().log_json)
    app = create_app()
    # All of it stays: to look through it again and again stops every request for a tenth of a second.
    gc.freeze()
    return app
