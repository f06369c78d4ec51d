"""Webhook endpoints, and deliveries that the client verifies."""

from typing import Any

import openai
from openai import OpenAI

from tests.clients.methods import Methods, refused
from tests.receiver import receiving

EVENTS = ["fine_tuning.job.succeeded", "batch.completed"]


def check_webhooks(client: OpenAI, methods: Methods) -> None:
    """A sample event is delivered to a server here; older clients have methods for its verification alone."""
    with receiving() as receiver:
        with methods("webhooks.unwrap"):
            body = {"name": "clients", "url": receiver.url, "event_types": EVENTS}
            endpoint: Any = client.post("/webhook_endpoints", body=body, cast_to=object)
            client.post(f"/webhook_endpoints/{endpoint['id']}/test", body={"event_type": EVENTS[0]}, cast_to=object)
            [(headers, content)] = receiver.received
            secret = endpoint["signing_secret"]
            event: Any = client.webhooks.unwrap(content.decode(), headers, secret=secret)
            assert (event.object, event.type) == ("event", EVENTS[0]) and event.data.id
        with methods("webhooks.verify_signature"):
            client.webhooks.verify_signature(content.decode(), headers, secret=secret)
            try:
                client.webhooks.verify_signature(content.decode() + " ", headers, secret=secret)
            except openai.InvalidWebhookSignatureError:
                pass
            else:
                raise AssertionError("a changed event must not pass")
        if hasattr(client.webhooks, "create"):
            _check_endpoints(client.webhooks, methods, receiver.url)


def _check_endpoints(webhooks: Any, methods: Methods, url: str) -> None:
    with methods("webhooks.event_types.list"):
        assert set(EVENTS) <= set(webhooks.event_types.list().data)
    with methods("webhooks.create"):
        endpoint = webhooks.create(name="first", url=url, event_types=EVENTS)
        assert endpoint.signing_secret.startswith("whsec_")
    with methods("webhooks.retrieve"):
        assert webhooks.retrieve(endpoint.id).event_types == EVENTS
    with methods("webhooks.list"):
        assert endpoint.id in [listed.id for listed in webhooks.list(limit=1)]
    with methods("webhooks.update"):
        assert webhooks.update(endpoint.id, name="second").name == "second"
    with methods("webhooks.rotate_secret"):
        assert webhooks.rotate_secret(endpoint.id).signing_secret != endpoint.signing_secret
    with methods("webhooks.test"):
        assert webhooks.test(endpoint.id, event_type=EVENTS[1]).success
    with methods("webhooks.delete"):
        assert webhooks.delete(endpoint.id).deleted
        assert refused(lambda: webhooks.retrieve(endpoint.id)).status_code == 404
