"""The states of a job and the moves between them, as data (design, section 6)."""

VALIDATING_FILES = "validating_files"
QUEUED = "queued"
RUNNING = "running"
PAUSED = "paused"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"

STATES = (VALIDATING_FILES, QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED)
FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})

ALLOWED: dict[str, frozenset[str]] = {
    VALIDATING_FILES: frozenset({QUEUED, FAILED, CANCELLED}),
    QUEUED: frozenset({RUNNING, PAUSED, FAILED, CANCELLED}),
    RUNNING: frozenset({PAUSED, SUCCEEDED, FAILED, CANCELLED}),
    # Only a claim makes work run, so what is resumed waits for a worker like everything else.
    PAUSED: frozenset({QUEUED, FAILED, CANCELLED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
}


def sources_of(state: str) -> frozenset[str]:
    """The states from which a job may move to ``state``."""
    return frozenset(source for source, targets in ALLOWED.items() if state in targets)
