"""Evaluations: models beside each other, over tasks and numbers of shots."""
