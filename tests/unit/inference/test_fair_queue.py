"""Who waits is served by what each tenant has used, the urgent ones first."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.inference.fair_queue import FairQueue, Start


def anything(_: object) -> Start:
    return Start.BEGUN


def first(queue: FairQueue[str], start: Callable[[str], Start] = anything) -> str | None:
    """Let one begin; there is no room for the next."""
    begun: list[str] = []

    def start_one(item: str) -> Start:
        started = Start.FULL if begun else start(item)
        if started is Start.BEGUN:
            begun.append(item)
        return started

    queue.offer(start_one)
    return begun[0] if begun else None


def served(queue: FairQueue[str], count: int, work: float = 1.0) -> list[str]:
    """Serve some, each for the same work; items are named ``tenant-number``."""
    found = []
    for _ in range(count):
        item = first(queue)
        assert item is not None
        queue.charge(item.split("-")[0], work)
        found.append(item)
    return found


def push(queue: FairQueue[str], tenant: str, count: int, priority: int = 0) -> None:
    for number in range(count):
        queue.push(f"{tenant}-{number}", tenant, priority)


def test_a_tenant_is_served_in_order():
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 5)
    assert served(queue, 5) == [f"a-{number}" for number in range(5)]
    assert first(queue) is None


def test_a_hundred_requests_of_one_do_not_starve_another_ones():
    queue: FairQueue[str] = FairQueue()
    push(queue, "crowd", 100)
    served(queue, 10)
    push(queue, "one", 1)
    assert "one-0" in served(queue, 2)


def test_tenants_take_turns():
    queue: FairQueue[str] = FairQueue()
    for tenant in "abc":
        push(queue, tenant, 20)
    found = [item[0] for item in served(queue, 30)]
    assert {tenant: found.count(tenant) for tenant in "abc"} == {"a": 10, "b": 10, "c": 10}
    assert max(len(run) for run in "".join(found).replace("bc", " ").replace("cb", " ").split()) <= 3


def test_whoever_asks_for_more_work_gets_fewer_requests():
    queue: FairQueue[str] = FairQueue()
    push(queue, "small", 100)
    push(queue, "large", 100)
    counts = {"small": 0, "large": 0}
    for _ in range(55):
        item = first(queue)
        assert item is not None
        tenant = item.split("-")[0]
        counts[tenant] += 1
        queue.charge(tenant, 1.0 if tenant == "small" else 10.0)
    assert 45 <= counts["small"] <= 52


def test_a_tenant_that_was_away_has_saved_nothing_up():
    queue: FairQueue[str] = FairQueue()
    push(queue, "away", 1)
    served(queue, 1)
    push(queue, "busy", 200)
    served(queue, 100)
    push(queue, "away", 50)
    found = served(queue, 40)
    assert 15 <= sum(item.startswith("away") for item in found) <= 25


def test_the_urgent_come_first_whatever_their_tenants_have_used():
    queue: FairQueue[str] = FairQueue()
    push(queue, "bulk", 3, priority=1)
    push(queue, "busy", 3, priority=0)
    queue.charge("busy", 1000)
    assert served(queue, 6) == ["busy-0", "busy-1", "busy-2", "bulk-0", "bulk-1", "bulk-2"]


def test_one_that_there_is_no_room_for_holds_up_its_own_tenant_alone():
    queue: FairQueue[str] = FairQueue()
    push(queue, "stuck", 2)
    push(queue, "other", 2)
    asked = []

    def start(item: str) -> Start:
        asked.append(item)
        return Start.FULL if item.startswith("stuck") else Start.BEGUN

    assert [first(queue, start), first(queue, start), first(queue, start)] == ["other-0", "other-1", None]
    assert "stuck-1" not in asked
    assert len(queue) == 2
    assert first(queue) == "stuck-0"


def test_one_whose_own_things_are_on_the_way_is_passed_by_and_keeps_its_place():
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 3)
    unready = {"a-0"}

    def start(item: str) -> Start:
        return Start.UNREADY if item in unready else Start.BEGUN

    assert first(queue, start) == "a-1"
    unready.clear()
    assert [first(queue, start), first(queue, start), first(queue, start)] == ["a-0", "a-2", None]


def test_few_are_passed_by():
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 2000)
    push(queue, "b", 1)
    asked = []

    def start(item: str) -> Start:
        asked.append(item)
        return Start.BEGUN if item == "b-0" else Start.UNREADY

    queue.offer(start)
    assert len(queue) == 2000
    assert len(asked) < 50


def test_all_that_there_is_room_for_begin_at_once():
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 3)
    push(queue, "b", 3)
    asked: list[str] = []

    def start(item: str) -> Start:
        asked.append(item)
        return Start.FULL if item == "a-2" else Start.BEGUN

    queue.offer(start)
    assert asked == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert [first(queue), first(queue)] == ["a-2", None]


def test_what_is_not_wanted_any_more_is_taken_out():
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 3)
    push(queue, "b", 1, priority=1)
    assert sorted(queue.remove(lambda item: item in ("a-0", "a-2", "b-0"))) == ["a-0", "a-2", "b-0"]
    assert (len(queue), first(queue), first(queue)) == (1, "a-1", None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.booleans()), max_size=60))
def test_nothing_is_lost_or_served_twice(events):
    queue: FairQueue[int] = FairQueue()
    served: list[int] = []
    for number, (tenant, priority, pops) in enumerate(events):
        queue.push(number, tenant, priority)
        if pops:
            item = first(queue)
            assert item is not None
            queue.charge(events[item][0], 1.0 + item % 3)
            served.append(item)
        assert len(queue) == number + 1 - len(served)
    while (item := first(queue)) is not None:
        served.append(item)
    assert sorted(served) == list(range(len(events)))
