"""Webhooks: endpoints, the outbox of events, signatures."""
