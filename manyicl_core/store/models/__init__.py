"""Models that a client can name: base models and the adapters that jobs made."""
