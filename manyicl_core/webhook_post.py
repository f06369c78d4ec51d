"""POST to a URL that a user named.

The service asks nobody else's servers on a user's word but these, and gives as little away as can
be: only public addresses, checked when the name is resolved and then connected to as they are; no
redirects, no proxies, little time; of the answer only its status.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

import httpx2

TOTAL_SECONDS = 15.0
_STEP_SECONDS = 5.0

_PRIVATE = "its address is not a public one; an operator may allow that with MANYICL_WEBHOOK_PRIVATE_ADDRESSES"
# An IPv4 address inside an IPv6 one: what stands behind it is not for us to know.
_TUNNELS = [
    ipaddress.IPv6Network(network)
    for network in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
]


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt went: ``error`` is None when the receiver has taken what was sent."""

    status: int | None
    error: str | None


def check_url(url: str, private_addresses: bool) -> str | None:
    """What is wrong with a URL, as far as can be said without asking a name server; None: nothing."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, UnicodeError):
        return "this is not a URL; give one such as https://example.org/hooks"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return "only http:// and https:// URLs with a host can be sent to"
    if parsed.userinfo or parsed.fragment:
        return "leave user name, password and #fragment out"
    if not private_addresses and not _may_be_public(parsed.host):
        return _PRIVATE
    return None


async def post(url: str, headers: dict[str, str], body: str, private_addresses: bool) -> Answer:
    """One attempt. It never raises for what the other side does, and ends within ``TOTAL_SECONDS``."""
    if problem := check_url(url, private_addresses):
        return Answer(None, problem)
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await _post(httpx2.URL(url), headers, body, private_addresses)
    except TimeoutError:
        return Answer(None, f"there was no answer within {TOTAL_SECONDS:.0f} seconds")


async def _post(url: httpx2.URL, headers: dict[str, str], body: str, private_addresses: bool) -> Answer:
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, OverflowError):
        return Answer(None, "its name cannot be resolved")
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not private_addresses and not all(map(is_public, addresses)):
        return Answer(None, _PRIVATE)
    # To the address that was checked, whatever the name says next time.
    pinned = url.copy_with(host=addresses[0])
    named = {**headers, "host": url.netloc.decode("ascii"), "user-agent": "ManyICL-Webhooks"}
    async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=_STEP_SECONDS) as client:
        try:
            async with client.stream(
                "POST", pinned, content=body, headers=named, extensions={"sni_hostname": host}
            ) as response:
                return _judged(response.status_code)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
            return Answer(None, f"there is no answer ({type(error).__name__})")


def _judged(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer(status, None)
    if 300 <= status < 400:
        return Answer(status, "it redirects, which is not followed; give the URL that answers itself")
    return Answer(status, f"it answers with status {status}")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _TUNNELS):
        return False
    return ip.is_global and not ip.is_multicast


def _may_be_public(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:  # a name
        return host.rstrip(".").lower() != "localhost"
