"""The table of allowed moves between the states of a job."""

import pytest

from manyicl_core.store.job_states import ALLOWED, FINAL, STATES, sources_of

MOVES = {
    ("validating_files", "queued"),
    ("validating_files", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "queued"),
    ("paused", "failed"),
    ("paused", "cancelled"),
}


def test_the_table_has_a_row_for_every_state():
    assert set(ALLOWED) == set(STATES)
    assert len(set(STATES)) == len(STATES)


@pytest.mark.parametrize("target", STATES)
@pytest.mark.parametrize("source", STATES)
def test_a_move_is_allowed_or_refused_as_designed(source: str, target: str):
    allowed = (source, target) in MOVES
    assert (target in ALLOWED[source]) is allowed
    assert (source in sources_of(target)) is allowed


def test_nothing_leaves_a_final_state_and_everything_else_can_end():
    assert {state for state in STATES if not ALLOWED[state]} == FINAL
    for state in set(STATES) - FINAL:
        assert {"failed", "cancelled"} <= ALLOWED[state]
