from typing import Any

import openai
import pytest
from openai import OpenAI

from manyicl_core.store.session import transaction
from manyicl_core.store.tables import JobMetrics
from tests.jobs import create_job


def test_metrics_come_in_pages_thinned_out_and_as_csv(client: OpenAI) -> None:
    job_id = create_job(client, evaluate=False).id
    with transaction() as session:
        for step in range(1, 9):
            values: dict[str, Any] = {"step": step, "train_loss": 1 / step, "loss_by_answer": {"0": 0.5}}
            session.add(JobMetrics(job_id=job_id, step=step, values=values))
    url = f"/fine_tuning/jobs/{job_id}/metrics"
    page = client.get(f"{url}?limit=3&after=1&every=2", cast_to=dict[str, Any])
    assert [(entry["step"], entry["metrics"]["train_loss"]) for entry in page["data"]] == [
        (2, 1 / 2),
        (4, 1 / 4),
        (6, 1 / 6),
    ]
    rest = client.get(f"{url}?after={page['last_id']}&every=2", cast_to=dict[str, Any])
    assert ([entry["step"] for entry in rest["data"]], page["has_more"], rest["has_more"]) == ([8], True, False)
    header, *lines = client.get(f"{url}?format=csv&every=4", cast_to=str).splitlines()
    assert header.startswith("step,train_loss,train_mean_token_accuracy,valid_loss,")
    assert [line.split(",")[:2] for line in lines] == [["4", "0.25"], ["8", "0.125"]]
    with pytest.raises(openai.BadRequestError) as refused:
        client.get(f"{url}?every=0", cast_to=object)
    assert refused.value.param == "every"
