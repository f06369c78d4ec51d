import subprocess
from collections.abc import Callable

from openai import OpenAI

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import Batch
from tests.batches import await_batch, create_batch, request, result_lines
from tests.services import wait_for

# Enough that a batch is still at work a second after its first chunk.
REQUESTS = 600
ANSWER_TOKENS = 12


def completed(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def test_a_killed_batch_goes_on_and_a_cancelled_one_keeps_its_answers(
    client: OpenAI, start_hosting: Callable[[], subprocess.Popen[str]]
) -> None:
    worker = start_hosting()
    ids = {str(number) for number in range(REQUESTS)}
    lines = [request(custom_id, max_tokens=ANSWER_TOKENS) for custom_id in sorted(ids)]
    batch = create_batch(client, lines)
    wait_for(lambda: completed(client, batch.id) > 0, "a chunk")
    worker.kill()
    worker.wait()
    before = completed(client, batch.id)
    assert 0 < before < REQUESTS
    assert client.batches.retrieve(batch.id).status == "in_progress"

    start_hosting()
    done = await_batch(client, batch.id, "completed", "failed")
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert set(result_lines(client, done.output_file_id)) == ids
    with transaction() as session:
        assert session.get_one(Batch, batch.id).fence > 1, "the batch was not taken up again"

    batch = create_batch(client, lines)
    wait_for(lambda: completed(client, batch.id) > 0, "a chunk")
    assert client.batches.cancel(batch.id).status == "cancelling"
    cancelled = await_batch(client, batch.id, "cancelled", "completed")
    assert cancelled.status == "cancelled"
    answered = result_lines(client, cancelled.output_file_id)
    never_sent = result_lines(client, cancelled.error_file_id)
    assert len(answered) == completed(client, batch.id) > 0
    assert set(answered) | set(never_sent) == ids
    assert not set(answered) & set(never_sent)
    assert {line["error"]["code"] for line in never_sent.values()} == {"batch_cancelled"}
