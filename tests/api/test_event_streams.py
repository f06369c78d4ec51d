import httpx2
import openai
import pytest
from openai import OpenAI

from tests.jobs import create_job
from tests.streams import follow


def test_a_jobs_stream_tells_its_story_as_it_happens_and_goes_on_where_a_client_left(
    client: OpenAI, installation: str, api_key: str
) -> None:
    job = create_job(client, evaluate=False)
    url = f"{installation}/fine_tuning/jobs/{job.id}/events?stream=true"
    stream = follow(url, api_key)
    followed = [next(stream), next(stream)]
    assert [data["message"].split()[0] for _, _, data in followed] == ["Created", "Files"]
    client.fine_tuning.jobs.pause(job.id)
    while not followed[-1][2]["message"].startswith("The job is paused"):
        followed.append(next(stream))
    client.fine_tuning.jobs.cancel(job.id)
    followed += stream
    assert followed[-1] == ("done", None, {})
    listed = [event.id for event in client.fine_tuning.jobs.list_events(job.id)]
    assert [event_id for _, event_id, _ in followed[:-1]] == listed[::-1]
    assert list(follow(url, api_key, followed[1][1])) == followed[2:]
    begun = f"{url}&after={followed[0][1]}"
    assert list(follow(begun, api_key, followed[1][1])) == followed[2:], "Last-Event-ID wins"
    assert list(follow(begun, api_key, "")) == followed[1:], "an empty one is none"


def test_a_stream_of_nothing_is_refused(client: OpenAI, installation: str, api_key: str) -> None:
    job = create_job(client, evaluate=False)
    with pytest.raises(openai.NotFoundError):
        client.get("/fine_tuning/jobs/ftjob-missing/events?stream=true", cast_to=object)
    headers = {"authorization": f"Bearer {api_key}", "last-event-id": "ftevent-missing"}
    answer = httpx2.get(f"{installation}/fine_tuning/jobs/{job.id}/events?stream=true", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "after")
