"""What ``manyicl api`` serves: the application, with this process's logging set up first."""

from fastapi import FastAPI

from api.app import create_app
from manyicl_core.logging import configure_logging
from manyicl_core.settings import get_settings


def create_logged_app() -> FastAPI:
    """The factory that uvicorn calls."""
    configure_logging("api", get_settings().log_json)
    return create_app()
