"""The ``manyicl`` command."""
