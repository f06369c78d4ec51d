"""What bad bodies do to the api: ``python -m benchmarks.hostile_uploads --json FILE [--quick] [--seed N]``.

2,000 bodies (100 with ``--quick``) of ``benchmarks.hostile_bodies``, each sent to ``POST /v1/files``
and as a part of an upload that is then completed, over two connections at once. Files that are
right by chance are deleted again. In the end nothing may be left, no answer may be a 5xx, and every
refusal has the error envelope. Bodies of a gigabyte come last, streamed: one line, and zeros in
gzip. ``api_peak_memory_bytes`` is the most that the api process ever had.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from benchmarks.api_process import Api
from benchmarks.hostile_bodies import HostileBody, hostile_body
from benchmarks.installation import running_installation, stored_files

_AT_ONCE = 2
_ENVELOPE = {"message", "type", "param", "code"}


def main() -> int:
    """Send them all and write the figures; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="100 bodies instead of 2,000, and no gigabyte")
    parser.add_argument("--seed", type=int, default=0, help="of the bodies")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="manyicl-") as folder, running_installation(Path(folder)) as api:
        result = measure(
            api, Path(folder), 100 if arguments.quick else 2000, arguments.seed, gigabytes=not arguments.quick
        )
    Console().print(result)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if result["server_errors"] or result["files_left"] or result["without_envelope"] else 0


def measure(api: Api, folder: Path, bodies: int, seed: int, gigabytes: bool) -> dict[str, Any]:
    """The figures of ``bodies`` bodies."""
    before = stored_files(folder)
    memory_before = api.peak_memory_bytes()
    with open_client(api.base_url, api.api_key) as client:
        random_ = random.Random(seed)
        answers: list[Answer] = []
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for left in range(bodies, 0, -_AT_ONCE):
                drawn = [hostile_body(random_) for _ in range(min(left, _AT_ONCE))]
                for found in threads.map(partial(try_body, client), drawn):
                    answers += found
        if gigabytes:
            answers += [
                _send_gigabyte(client, content) for content in (b"x" * (1 << 20), gzip.compress(bytes(1 << 26)))
            ]
        listed = client.get("/files").json()["data"]
    answers_by_status = Counter(status for status, _ in answers)
    return {
        "bodies": bodies,
        "seed": seed,
        "answers": len(answers),
        "answers_by_status": {str(status): count for status, count in sorted(answers_by_status.items())},
        "server_errors": sum(count for status, count in answers_by_status.items() if status >= 500),
        "without_envelope": sum(1 for _, said in answers if said is None),
        "files_left": len(listed) + len(stored_files(folder) - before),
        "api_memory_before_bytes": memory_before,
        "api_peak_memory_bytes": api.peak_memory_bytes(),
    }


def open_client(base_url: str, key: str) -> httpx2.Client:
    """A client of a project."""
    return httpx2.Client(base_url=base_url, headers={"authorization": f"Bearer {key}"}, timeout=300)


Answer = tuple[int, str | None]
"""A status, and the error's message: empty when there is none, None when a refusal is no envelope."""


def try_body(client: httpx2.Client, hostile: HostileBody) -> list[Answer]:
    """Send a body in both ways; what is taken is deleted again."""
    headers = {"content-type": hostile.content_type} if hostile.content_type else {}
    as_file = client.post("/files", content=hostile.body, headers=headers)
    if as_file.is_success:
        client.delete(f"/files/{as_file.json()['id']}").raise_for_status()
    announced = {"bytes": len(hostile.body), "filename": "a", "mime_type": "a", "purpose": "fine-tune"}
    upload = client.post("/uploads", json=announced).raise_for_status().json()["id"]
    as_field = hostile.body.replace(b'name="file"', b'name="data"')
    part = client.post(f"/uploads/{upload}/parts", content=as_field, headers=headers)
    answers = [as_file, part]
    if part.is_success:
        sized = (
            client.post("/uploads", json={**announced, "bytes": part.json()["bytes"]}).raise_for_status().json()["id"]
        )
        again = client.post(f"/uploads/{sized}/parts", content=as_field, headers=headers).raise_for_status()
        whole = client.post(f"/uploads/{sized}/complete", json={"part_ids": [again.json()["id"]]})
        answers.append(whole)
        if whole.is_success:
            client.delete(f"/files/{whole.json()['file']['id']}").raise_for_status()
        else:
            client.post(f"/uploads/{sized}/cancel").raise_for_status()
    client.post(f"/uploads/{upload}/cancel").raise_for_status()
    return [_answer(response) for response in answers]


def _send_gigabyte(client: httpx2.Client, megabyte: bytes) -> Answer:
    """One line, or one gzip member after the other, until the api has enough."""

    def body() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range((1 << 30) // max(len(megabyte), 1 << 20)):
            yield megabyte
        yield b"\r\n--x--\r\n"

    try:
        return _answer(
            client.post("/files", content=body(), headers={"content-type": "multipart/form-data; boundary=x"})
        )
    except httpx2.WriteError:  # it has hung up on us, as it may
        return 413, ""


def _answer(response: httpx2.Response) -> Answer:
    if response.is_success:
        return response.status_code, ""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError):
        return response.status_code, None
    return response.status_code, error["message"] if set(error) == _ENVELOPE else None


if __name__ == "__main__":
    sys.exit(main())
