"""The REST application: ``create_app`` puts routes, errors and middleware together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.errors import install_error_handlers
from api.middleware import BodyLimitMiddleware, RequestIdMiddleware
from api.routes import batches, chat, classifications, completions, contexts, evaluations, files, health, jobs, models
from manyicl_core import __version__
from manyicl_core.engines.client import open_engines
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required

_MULTIPART_OVERHEAD = 1 << 20


def create_app() -> FastAPI:
    """The application of this process's settings."""
    settings = get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.artifacts = open_store(required(settings, "storage_url"))
        app.state.engine = open_engines(settings, app.state.artifacts)
        yield
        await app.state.engine.close()

    app = FastAPI(
        title="ManyICL",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    install_error_handlers(app)
    for module in (files, jobs, evaluations, models, contexts, chat, completions, classifications, batches):
        app.include_router(module.router, prefix="/v1")
    app.include_router(health.router)
    app.add_middleware(BodyLimitMiddleware, max_body_size=settings.max_file_bytes + _MULTIPART_OVERHEAD)
    app.add_middleware(RequestIdMiddleware)
    return app
