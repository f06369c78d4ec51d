"""A few cases an operation of what ``benchmarks.schemathesis_cases`` sends by the thousand, and of hostile uploads."""

import random
from pathlib import Path

from benchmarks.hostile_bodies import hostile_body
from benchmarks.hostile_uploads import open_client, try_body
from benchmarks.schemathesis_cases import run_cases, write_document
from tests.services import BASE_MODEL, Servers


def test_generated_cases_meet_no_failure(installation: str, api_key: str, tmp_path: Path) -> None:
    document = write_document(installation, api_key, BASE_MODEL, tmp_path)
    report = run_cases(installation, api_key, document, seed=3, examples=1, phases=("examples", "fuzzing"))
    assert report["complete"]
    assert (report["failures"], report["errors"]) == ([], [])
    assert report["test_cases"]["generated"] > 69


def test_hostile_uploads_are_refused_in_the_envelope_and_leave_nothing(
    installation: str, api_key: str, servers: Servers
) -> None:
    def stored() -> set[Path]:
        return {path for path in (servers.folder / "artifacts").rglob("*") if path.is_file()}

    before = stored()
    random_ = random.Random(4)
    with open_client(installation, api_key) as client:
        answers = [answer for _ in range(40) for answer in try_body(client, hostile_body(random_))]
        assert client.get("/files").json()["data"] == []
    assert stored() == before
    assert all(status < 500 and said is not None for status, said in answers)
    assert {400, 413} & {status for status, _ in answers}
