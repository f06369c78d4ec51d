"""Quotas: what a project may keep, queue, train and ask."""
