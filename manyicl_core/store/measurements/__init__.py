"""How fast the workers train, and what a job will therefore take."""
