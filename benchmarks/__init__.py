"""One file a claim; each prints a table and writes JSON: ``python -m benchmarks.NAME --json FILE``."""
