import json
from pathlib import Path
from typing import Any

import pytest

from manyicl_core.errors import InvalidRequest, NotFound
from manyicl_core.store.batches import lines
from manyicl_core.store.batches.lines import BatchRequest, CheckedFile, check_file, read_requests

ENDPOINT = "/v1/chat/completions"


def line(custom_id: str = "a", **changes: Any) -> bytes:
    content = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {"model": "m"}, **changes}
    return json.dumps({name: value for name, value in content.items() if value is not None}).encode()


def checked(folder: Path, *content: bytes) -> CheckedFile:
    def check_body(body: dict[str, Any]) -> None:
        if body["model"] == "gone":
            raise NotFound("model", "gone", "model")
        if "n" in body:
            raise InvalidRequest("n: too many", "n")

    path = folder / "requests.jsonl"
    path.write_bytes(b"\n".join(content))
    return check_file(path, ENDPOINT, check_body)


def test_right_lines_are_counted_and_read_in_order(tmp_path: Path) -> None:
    result = checked(tmp_path, b"\xef\xbb\xbf" + line("a"), b"", line("b", body={"model": "m", "x": 1}), b"")
    assert result == CheckedFile(total=2, model="m", problems=[])
    requests = list(read_requests(tmp_path / "requests.jsonl"))
    assert requests == [BatchRequest("a", {"model": "m"}), BatchRequest("b", {"model": "m", "x": 1})]


def test_several_models_are_no_one_model(tmp_path: Path) -> None:
    assert checked(tmp_path, line("a"), line("b", body={"model": "other"})).model is None


@pytest.mark.parametrize(
    ("wrong", "code", "param", "said"),
    [
        (b"{oops", "invalid_json_line", None, "one JSON object a line"),
        (b"[1]", "invalid_json_line", None, "not a JSON object"),
        (b"[" * 100_000, "invalid_json_line", None, "nested deeper"),
        (b"9" * 5000, "invalid_json_line", None, "64 bits"),
        (b"\xff\xfe", "invalid_json_line", None, "UTF-8"),
        (line(custom_id="first"), "duplicate_custom_id", "custom_id", "line 2's already"),
        (line(custom_id=""), "invalid_request", "custom_id", "a text of 1 to 512 characters"),
        (line(body=None), "missing_required_parameter", "body", "required"),
        (line(method="GET"), "invalid_request", "method", "POST"),
        (line(url="/v1/embeddings"), "mismatched_endpoint", "url", "'/v1/chat/completions'"),
        (line(body={"model": "m", "stream": True}), "invalid_request", "body.stream", "stream"),
        (line(body={"model": "gone"}), "model_not_found", "body.model", "'gone'"),
        (line(body={"model": "m", "n": 99}), "invalid_request", "body.n", "body.n: too many"),
        (line(**{"a\x00": 1}), "invalid_json_line", None, "NUL"),
        (line(custom_id="\ud800"), "invalid_json_line", None, "surrogate"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, wrong: bytes, code: str, param: str | None, said: str) -> None:
    problems = checked(tmp_path, b"", line("first"), wrong).problems
    assert [(problem.line, problem.code, problem.param) for problem in problems] == [(3, code, param)]
    assert said in problems[0].message
    assert "\x00" not in problems[0].message


def test_every_wrong_line_is_named_up_to_a_bound(tmp_path: Path) -> None:
    problems = checked(tmp_path, *[b"{oops"] * 150).problems
    assert [problem.line for problem in problems] == [*range(1, 101), None]
    assert "50 more lines" in problems[-1].message


def test_a_file_without_requests_is_refused(tmp_path: Path) -> None:
    assert [problem.code for problem in checked(tmp_path, b" ", b"").problems] == ["empty_file"]


def test_a_line_and_a_file_may_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_REQUESTS", 2)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 200)
    problems = checked(tmp_path, line("a" * 300), line("b"), line("c"), line("d")).problems
    assert [(problem.line, problem.code) for problem in problems] == [(1, "line_too_long"), (3, "too_many_requests")]
