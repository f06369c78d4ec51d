"""Base models: which are known, how their files get here, how they are loaded."""
