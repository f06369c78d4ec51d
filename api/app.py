"""The REST application: ``create_app`` puts routes, errors and middleware together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.audit import AuditMiddleware
from api.authentication import AuthenticationMiddleware
from api.browsers import let_pages_call
from api.documentation import install_documentation, operation_id
from api.errors import install_error_handlers
from api.event_feed import EventFeed
from api.metered_engine import writing_usage
from api.middleware import BodyLimitMiddleware, HeadMiddleware, JsonBodyMiddleware, RequestIdMiddleware
from api.routes import (
    artifacts,
    audit_logs,
    batches,
    chat,
    classifications,
    completions,
    contexts,
    evaluations,
    files,
    health,
    jobs,
    models,
    permissions,
    projects,
    quotas,
    responses,
    uploads,
    usage,
    webhook_endpoints,
)
from manyicl_core import __version__
from manyicl_core.engines.client import open_engines
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required
from manyicl_core.store.engine import limit_lock_waits
from manyicl_core.store.evaluations.service import evaluation_news
from manyicl_core.store.jobs.service import job_news
from manyicl_core.store.quotas.rate_limits import RateLimits

_MODULES = (
    uploads,
    jobs,
    evaluations,
    artifacts,  # before models, whose path would take theirs for the rest of an id
    models,
    permissions,
    contexts,
    chat,
    responses,
    completions,
    classifications,
    batches,
    webhook_endpoints,
    projects,
    audit_logs,
    quotas,
    usage,
)

_MAX_BODY_BYTES = 8 << 20
"""Of what is not a file: it is held in memory."""

_PREFIX = "/v1"
_MULTIPART_OVERHEAD = 1 << 20


def create_app() -> FastAPI:
    """The application of this process's settings."""
    settings = get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limit_lock_waits()
        app.state.artifacts = open_store(required(settings, "storage_url"))
        app.state.job_feed = EventFeed(job_news)
        app.state.evaluation_feed = EventFeed(evaluation_news)
        app.state.engine = open_engines(settings, app.state.artifacts)
        app.state.rate_limits = RateLimits(required(settings, "broker_url"))
        async with writing_usage() as app.state.usage:
            yield
        app.state.rate_limits.close()
        await app.state.engine.close()

    app = FastAPI(
        title="ManyICL",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,
        form_limits={"max_files": 1, "max_fields": 8, "max_part_size": 1 << 16},
    )
    install_error_handlers(app)
    app.include_router(files.router, prefix=_PREFIX, max_body_size=settings.max_file_bytes + _MULTIPART_OVERHEAD)
    for module in _MODULES:
        app.include_router(module.router, prefix=_PREFIX)
    app.include_router(health.router)
    install_documentation(app)
    app.add_middleware(AuditMiddleware, prefix=_PREFIX)
    app.add_middleware(JsonBodyMiddleware)
    app.add_middleware(AuthenticationMiddleware, prefix=_PREFIX)
    app.add_middleware(BodyLimitMiddleware, max_body_size=_MAX_BODY_BYTES)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(HeadMiddleware)
    if settings.cors_origins:
        let_pages_call(app, settings.cors_origins)
    return app
