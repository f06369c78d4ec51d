import asyncio

import pytest

from manyicl_core.webhook_post import Answer, check_url, is_public, post
from tests.receiver import receiving


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_may_be_sent_to(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "2002:808:808::",
        "64:ff9b::808:808",
        "2001:0:808:808::1",
    ],
)
def test_private_addresses_and_tunnels_to_them_may_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "example.org",
        "https://",
        "https://user:word@example.org/",
        "https://example.org/#part",
        "http://[::1",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://127.0.0.1:8000/",
        "http://[::ffff:127.0.0.1]/",
        "\x00",
    ],
)
def test_a_url_that_cannot_be_sent_to_is_refused_with_a_reason(url: str) -> None:
    assert check_url(url, private_addresses=False)


def test_an_ordinary_url_is_accepted_and_a_private_one_where_that_is_allowed() -> None:
    assert check_url("https://example.org:8443/hooks?team=7", private_addresses=False) is None
    assert check_url("http://127.0.0.1:8000/", private_addresses=True) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
def test_whatever_resolves_to_a_private_address_is_not_connected_to(host: str) -> None:
    with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", host)
        answer = asyncio.run(post(url, {}, "{}", private_addresses=False))
    assert answer.status is None
    assert "not a public one" in str(answer.error)
    assert receiver.received == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(204, None), (302, "it redirects"), (500, "it answers with status 500")],
)
def test_only_a_2xx_counts_and_neither_redirects_nor_bodies_are_followed(status: int, error: str | None) -> None:
    with receiving() as receiver:
        receiver.statuses = [status]
        answer = asyncio.run(post(receiver.url, {"webhook-id": "evt_1"}, '{"a": 1}', private_addresses=True))
    assert answer.status == status
    assert str(answer.error).startswith(str(error))
    [(headers, body)] = receiver.received
    assert (headers["webhook-id"], body) == ("evt_1", b'{"a": 1}')
    assert headers["host"] == receiver.url.split("/")[2]


def test_nobody_there_is_an_answer_too() -> None:
    with receiving() as receiver:
        url = receiver.url
    assert asyncio.run(post(url, {}, "{}", private_addresses=True)) == Answer(None, "there is no answer (ConnectError)")
    nameless = asyncio.run(post("http://name.invalid/", {}, "{}", private_addresses=True))
    assert nameless == Answer(None, "its name cannot be resolved")
