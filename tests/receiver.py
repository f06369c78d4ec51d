"""A small HTTP server that takes webhooks, and answers as a test says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Received = tuple[dict[str, str], bytes]


class Receiver:
    """Keeps what arrives in ``received``; ``statuses`` are its next answers, 200 when there are none left.

    It answers as long as ``answers`` is set, and otherwise when it is.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.answers = threading.Event()
        self.answers.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            receiver.answers.wait()
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("location", receiver.url)
            # More than is ever sent: whoever reads the body waits.
            self.send_header("content-length", str(1 << 40))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    return Handler
