"""Where the api listens, and where it is found."""

import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_ALL = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - who asks for all addresses gets them


@dataclass(frozen=True, slots=True)
class Address:
    """What a server is told to listen on."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where this machine reaches it: nobody can connect to "all addresses"."""
        host = _ALL.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def others_url(self) -> str | None:
        """Where other machines may reach it; None: only through the one address that it has."""
        return f"http://{socket.gethostname()}:{self.port}" if self.host in _ALL else None

    def probe(self) -> None:
        """See that the port can be taken there.

        Raises:
            OSError: another listens there, or this machine has no such address.
        """
        [(family, kind, _, _, where), *_] = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
