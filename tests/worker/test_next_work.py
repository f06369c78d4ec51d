import threading
from collections.abc import Sequence
from typing import Any

import pytest
from openai import OpenAI
from sqlalchemy.orm import Session

from manyicl_core.store.fair_queue import Rows, Waiting, waiting_work
from manyicl_core.store.leases import Claim
from manyicl_core.store.tables import Context, Leased
from tests.contexts import PASTED, create_context
from tests.services import wait_for
from worker import next_work


def test_automatic_contexts_leave_threads_to_pasted_examples(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [create_context(client, **PASTED, selection="auto", seed=seed)["id"] for seed in range(3)]
    pasted = create_context(client, **PASTED)["id"]
    taken: list[str] = []
    done = threading.Event()

    def own(session: Session, tables: Sequence[type[Leased]], limit: int, but_for: Rows | None) -> list[Waiting]:
        waiting = waiting_work(session, tables, 1_000_000, but_for)
        return [row for row in waiting if row.id in (*slow, pasted)]

    def hold(_: Any, claim: Claim[Context]) -> None:
        taken.append(claim.id)
        assert done.wait(60)

    monkeypatch.setattr(next_work, "waiting_work", own)
    monkeypatch.setattr(next_work, "see_through", hold)
    threads = [threading.Thread(target=next_work.run_next_hosting, daemon=True) for _ in range(4)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        wait_for(lambda number=number, thread=thread: len(taken) == number or not thread.is_alive(), "a claim")  # type: ignore[misc]
    assert taken == [*slow[:2], pasted], "the third automatic one waits, though a thread is free"
    done.set()
    for thread in threads:
        thread.join()
    next_work.run_next_hosting()
    assert taken[3:] == slow[2:]
