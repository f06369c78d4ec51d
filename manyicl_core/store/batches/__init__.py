"""Batches: files of requests, answered when the engine has time for them."""
