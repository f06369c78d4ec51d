"""A server that speaks S3 on loopback, over a folder: `python -m tests.s3_server FOLDER PORT`.

The server is nanio, which checks signatures; what it lacks of S3 is added here: `If-None-Match: *`.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from nanio.app import build_app
from nanio.auth.credentials import StaticCredentialResolver
from nanio.config import Settings
from nanio.errors import NoSuchBucket, NoSuchKey, PreconditionFailed
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from manyicl_core.child_process import spawn, stop
from manyicl_core.embedded import free_port

PAGE = 10
"""How many objects a page of a list holds; of S3 it is 1,000."""
_KEY, _SECRET = "key-of-the-tests", "secret-of-the-tests"


class CreateOnly:
    """Answers a write with `If-None-Match: *` with 412 where the object is there, as S3 does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _creates_only(Request(scope)):
            await self._app(scope, receive, send)
            return
        async with self._writing[scope["path"]]:
            answer = Response(PreconditionFailed().to_xml(), 412, media_type="application/xml")
            await (answer if _is_there(scope) else self._app)(scope, receive, send)


def _creates_only(request: Request) -> bool:
    """Whether the request makes an object (a part of one does not) and asks for a new one."""
    makes = (request.method == "PUT" and "partNumber" not in request.query_params) or (
        request.method == "POST" and "uploadId" in request.query_params
    )
    return makes and request.headers.get("if-none-match") == "*"


def _is_there(scope: Scope) -> bool:
    bucket, key = scope["path"].removeprefix("/").split("/", 1)
    try:
        scope["app"].state.storage.head_object(bucket, key)
    except (NoSuchBucket, NoSuchKey):
        return False
    return True


class S3Server:
    """The running server, as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_bucket(self) -> str:
        """Make an empty bucket; gives its URL."""
        bucket = uuid4().hex
        (self._folder / bucket).mkdir()
        return f"s3://{bucket}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of this test process. Where it is and its keys are in the environment, as in service."""
    with tempfile.TemporaryDirectory(prefix="manyicl-s3-") as name:
        folder, log, port = Path(name, "buckets"), Path(name, "log"), free_port()
        folder.mkdir()
        with log.open("w", encoding="utf-8") as output:
            command = [sys.executable, "-m", "tests.s3_server", str(folder), str(port)]
            server = spawn(command, dict(os.environ), output, output)
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            AWS_ALLOW_HTTP="true",
            AWS_REGION="us-east-1",
            AWS_ACCESS_KEY_ID=_KEY,
            AWS_SECRET_ACCESS_KEY=_SECRET,
        )
        try:
            while not _answers(port):
                assert server.poll() is None, log.read_text("utf-8")
                time.sleep(0.02)
            yield S3Server(folder)
        finally:
            stop(server, 5)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _serve(folder: Path, port: int) -> None:
    settings = Settings(data_dir=folder, credentials=StaticCredentialResolver({_KEY: _SECRET}), max_list_keys=PAGE)
    app = build_app(settings)
    app.user_middleware.append(Middleware(CreateOnly))  # the innermost: signatures are checked first
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
