"""Contexts: demonstrations before a query, as the engine wants them."""
