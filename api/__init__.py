"""Faces the user: the REST API that the unmodified ``openai`` client speaks. No torch."""
