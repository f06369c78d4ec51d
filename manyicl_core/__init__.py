"""ManyICL: many-shot in-context fine-tuning as a service."""

__version__ = "0.1.0"
