"""Hosted many-shot inference: prefixes compiled once, queries decoded after them."""
