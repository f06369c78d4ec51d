"""What the engine counts, for ``GET /metrics``."""

from prometheus_client import Counter, Gauge, Histogram

PREFIX_LOOKUPS = Counter("manyicl_prefix_lookups_total", "Requests' contexts, by where they came from", ["source"])
PREFIX_EVICTIONS = Counter("manyicl_prefix_evictions_total", "Contexts that left memory for others")
PREFIX_BYTES = Gauge("manyicl_prefix_bytes", "Memory of compiled contexts")
ROWS = Histogram("manyicl_step_rows", "Answers that a step of the model goes on with", buckets=(1, 2, 4, 8, 16, 32, 64))
WAITING = Gauge("manyicl_waiting_requests", "Requests that no row is free for yet")
TOKENS = Counter("manyicl_tokens_total", "Tokens, by what was done with them", ["kind"])
REFUSED = Counter("manyicl_refused_requests_total", "Requests that were not answered", ["code"])
