"""Who asks is found out before anything of a request's body is read."""

from fastapi.concurrency import run_in_threadpool
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import database_away, refusal
from api.known_keys import KNOWN_KEYS
from manyicl_core.errors import Unauthorized, UserError
from manyicl_core.store.projects.service import Caller, authenticate
from manyicl_core.store.session import reading


class AuthenticationMiddleware:
    """Refuses a request without a key that holds, so that strangers send no gigabytes.

    The framework reads and keeps a body before it looks at what a route depends on. What the key may do
    is the routes' to say: they find the caller in ``request.state.caller``.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._under = prefix + "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and scope["path"].startswith(self._under):
            scheme, secret = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
            try:
                if scheme.lower() != "bearer":
                    raise Unauthorized
                scope.setdefault("state", {})["caller"] = KNOWN_KEYS.find(secret) or await run_in_threadpool(
                    _authenticated, secret
                )
            except UserError as error:
                await refusal(error)(scope, receive, send)
                return
            except OperationalError as error:
                await database_away(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _authenticated(secret: str) -> Caller:
    with reading() as session:
        caller = authenticate(session, secret)
    KNOWN_KEYS.remember(secret, caller)
    return caller
