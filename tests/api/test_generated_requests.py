"""Requests that nobody thought of: a slice of what the benchmarks send by the thousand."""

import json
import random
from pathlib import Path

from benchmarks.hostile_bodies import hostile_body
from benchmarks.hostile_uploads import open_client, try_body
from benchmarks.schemathesis_cases import run_cases, write_document
from manyicl_core.objects import open_store
from manyicl_core.settings import get_settings, required
from manyicl_core.store.projects.schemas import SCOPES
from tests.keys import make_key
from tests.services import BASE_MODEL

_HOSTILE_BODIES = 30


def test_generated_requests_are_answered_as_the_document_says(installation: str, tmp_path: Path) -> None:
    key = make_key(SCOPES)
    path = write_document(installation, key, BASE_MODEL, tmp_path)
    document = json.loads(path.read_text(encoding="utf-8"))
    report = run_cases(installation, key, path, 1, 1, ("examples", "fuzzing"))
    assert report["failures"] == report["errors"] == []
    assert report["test_cases"]["generated"] > len(document["paths"])


def test_hostile_bodies_are_refused_in_the_envelope_and_leave_nothing(installation: str) -> None:
    store = open_store(required(get_settings(), "storage_url"))
    before = {kind: store.names(kind) for kind in ("files", "uploads")}
    dice = random.Random(1)
    with open_client(installation, make_key()) as client:
        answers = [answer for _ in range(_HOSTILE_BODIES) for answer in try_body(client, hostile_body(dice))]
        assert client.get("/files").json()["data"] == []
    assert all(status < 500 and message is not None for status, message in answers)
    assert {status for status, _ in answers} >= {200, 400}
    assert {kind: store.names(kind) for kind in ("files", "uploads")} == before
