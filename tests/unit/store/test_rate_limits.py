"""Rate limits without a broker; those with one are in tests/api/test_quotas.py."""

import pytest

from manyicl_core.embedded import free_port
from manyicl_core.errors import Overloaded
from manyicl_core.store.quotas.rate_limits import Admission, RateLimits, Window


def test_nothing_is_limited_while_the_broker_is_away() -> None:
    rate_limits = RateLimits(f"redis://127.0.0.1:{free_port()}/0")
    assert rate_limits.admit("p", 0, 0) is None
    rate_limits.spend("p", 0, 10)
    assert rate_limits.admit("p", 0, 0) is None, "the broker is left alone for a while"
    rate_limits.close()


@pytest.mark.parametrize(
    ("admission", "what"),
    [
        (Admission(False, Window(2, 0, 61), Window(9, 4, 10)), "requests_per_minute"),
        (Admission(False, Window(2, 1, 10), Window(9, 0, 61)), "tokens_per_minute"),
    ],
)
def test_a_refusal_names_the_quota_that_is_used_up_and_when_to_come_again(admission: Admission, what: str) -> None:
    with pytest.raises(Overloaded) as refused:
        admission.check()
    assert what in refused.value.message
    assert refused.value.retry_after_ms == 61_000
    assert "1m1s" in admission.headers().values()
