"""Bodies that a file upload must survive, drawn from a seed: see ``benchmarks.hostile_uploads``."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MEGABYTE = 1 << 20
_BOUNDARY = b"a-boundary"
_PURPOSES = ("fine-tune", "fine-tune", "fine-tune", "batch", "evals", "user_data", "holiday", "", "\x00", "é" * 300)


@dataclass(frozen=True, slots=True)
class HostileBody:
    """One request body, and what it is."""

    kind: str
    content_type: str
    body: bytes


def hostile_body(random_: random.Random) -> HostileBody:
    """Any of them; some are right by chance."""
    if random_.random() < 0.25:
        kind, body, content_type = random_.choice(_FORMS)(random_)
        return HostileBody(kind, content_type, body)
    make = random_.choice((*_FILES, *_FILES, _packed))
    fields = {"purpose": random_.choice(_PURPOSES).encode()}
    if random_.random() < 0.1:
        fields["expires_after[anchor]"] = random_.choice((b"created_at", b"now", b""))
        fields["expires_after[seconds]"] = random_.choice((b"3600", b"-1", b"1e9", b"9" * 400, b"NaN", b""))
    body = _form(fields, random_.choice(_NAMES), make(random_))
    return HostileBody(make.__name__.strip("_"), _multipart(), body)


def right_lines(count: int) -> bytes:
    """A training file with nothing wrong."""
    return b"".join(
        json.dumps({"task": "t", "input": f"thing {number} é", "output": str(number)}).encode() + b"\n"
        for number in range(count)
    )


def _form(fields: dict[str, bytes], filename: bytes, content: bytes) -> bytes:
    parts = [
        b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (_BOUNDARY, name.encode(), value)
        for name, value in fields.items()
    ]
    disposition = b'content-disposition: form-data; name="file"; filename="%b"' % filename
    parts.append(b"--%b\r\n%b\r\ncontent-type: application/octet-stream\r\n\r\n" % (_BOUNDARY, disposition))
    return b"".join(parts) + content + b"\r\n--%b--\r\n" % _BOUNDARY


def _multipart(more: str = "") -> str:
    return f"multipart/form-data; boundary={_BOUNDARY.decode()}{more}"


_NAMES = (
    b"data.jsonl",
    b"../../etc/passwd",
    b"C:\\windows\\x.jsonl",
    b"a" * 300,
    b"a" * 5000,
    b"\xff\xfe",
    b"a\x00b",
    b"%0d%0aset-cookie: a=b",
    "\u202ejsonl.exe".encode(),
    b"",
    b'quo\\"te',
)


def _line(random_: random.Random, value: bytes) -> bytes:
    key = random_.choice((b"task", b"input", b"output", b"messages", b"weight", b"x"))
    line = b'{"task": "t", "input": "a", "output": "b", "%b": %b}\n' % (key, value)
    return right_lines(random_.randrange(3)) + line + right_lines(random_.randrange(3))


def _absurd_values(random_: random.Random) -> bytes:
    depth = random_.choice((30, 63, 64, 65, 500, 5000, 200_000))
    return _line(
        random_,
        random_.choice(
            (
                b"1e999",
                b"-1e999",
                b"NaN",
                b"Infinity",
                b"9" * random_.choice((20, 400, 5000, 500_000)),
                b"1." + b"0" * 500_000,
                b"[" * depth + b"]" * depth,
                b'{"a":' * depth + b"1" + b"}" * depth,
                b"[" * depth,
                b'"\\ud800"',
                b'"\\u0000"',
                b'"\\ud83d\\ude00"',
                b'"' + b"x" * random_.choice((100, 999_900, 2_000_000)) + b'"',
                b"[" + b"1," * random_.choice((10, 100_000, 400_000)) + b"1]",
                b'{"' + b"k" * 900_000 + b'": 1}',
                b"{" + b",".join(b'"k%d": 1' % number for number in range(50_000)) + b"}",
                b'"' + b'\\"' * 400_000,
                b'[{"role": "user", "content": "a"}]',
                b"[" + b'{"role": 1},' * 50_000 + b"1]",
                b"null",
                b"tru",
            )
        ),
    )


def _flipped(random_: random.Random) -> bytes:
    content = bytearray(right_lines(random_.choice((1, 5, 200))))
    for _ in range(random_.choice((1, 3, 50))):
        content[random_.randrange(len(content))] = random_.randrange(256)
    return bytes(content)


def _inserted(random_: random.Random) -> bytes:
    content = right_lines(random_.choice((1, 5, 200)))
    at = random_.randrange(len(content))
    odd = random_.choice(
        (b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\r", b"\x1a", b"\x85", b"{")
    )
    return content[:at] + odd + content[at:]


def _cut(random_: random.Random) -> bytes:
    content = right_lines(20)
    return content[: random_.randrange(len(content))]


def _encoded(random_: random.Random) -> bytes:
    encodings = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp500", "utf-8-sig", "utf-7", "cp1252")
    text = '{"task": "t", "input": "Größe", "output": "ü"}\n' * random_.choice((1, 100))
    return text.encode(random_.choice(encodings))


def _random_bytes(random_: random.Random) -> bytes:
    return random_.randbytes(random_.choice((0, 1, 2, 100, 10_000, _MEGABYTE)))


def _long_lines(random_: random.Random) -> bytes:
    size = random_.choice((_MEGABYTE, 5 * _MEGABYTE, 20 * _MEGABYTE))
    return random_.choice((b"x", b" ", b"[", b'"', b"\\", b"\x00", b"\r")) * size + random_.choice((b"", b"\n"))


def _many_lines(random_: random.Random) -> bytes:
    return random_.choice((b"\n", b"{}\n", b"x\n", b"null\n")) * random_.choice((1000, 100_000, 2_100_000))


def _other_formats(random_: random.Random) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../a.jsonl", right_lines(3))
    formats = (
        packed.getvalue(),
        bz2.compress(right_lines(3)),
        lzma.compress(right_lines(3)),
        zlib.compress(right_lines(3)),
        pickle.dumps(["a"]),
        b"PAR1" + random_.randbytes(50),
        b"%PDF-1.4\n",
        b"\x89PNG\r\n\x1a\n",
        b"task,input,output\nt,a,b\n",
        b"[" + right_lines(1).strip() + b"]",
    )
    return random_.choice(formats)


def _bomb(size: int, members: int = 1) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    megabyte = b"\n" * _MEGABYTE
    packed = b"".join(packer.compress(megabyte) for _ in range(size // _MEGABYTE)) + packer.flush()
    return packed * members


def _packed(random_: random.Random) -> bytes:
    packed = gzip.compress(random_.choice(_FILES)(random_), compresslevel=1)
    return random_.choice(_DAMAGES)(random_, packed)


def _bit_flipped(random_: random.Random, packed: bytes) -> bytes:
    damaged = bytearray(packed)
    damaged[random_.randrange(len(damaged))] ^= 1 << random_.randrange(8)
    return bytes(damaged)


_DAMAGES: Sequence[Callable[[random.Random, bytes], bytes]] = (
    lambda _, packed: packed,
    lambda _, packed: packed,
    lambda random_, packed: packed[: random_.randrange(len(packed))],
    _bit_flipped,
    lambda random_, packed: packed + random_.randbytes(20),
    lambda random_, _: _bomb(random_.choice((10, 200)) * _MEGABYTE, random_.choice((1, 3))),
    lambda random_, _: gzip.compress(b"") * random_.choice((10, 150_000)),
    lambda _, packed: gzip.compress(packed),
)


_FILES: Sequence[Callable[[random.Random], bytes]] = (
    _absurd_values,
    _flipped,
    _inserted,
    _cut,
    _encoded,
    _random_bytes,
    _long_lines,
    _many_lines,
    _other_formats,
)


def _wrong_form(random_: random.Random) -> tuple[str, bytes, str]:
    right = _form({"purpose": b"fine-tune"}, b"a.jsonl", right_lines(2))
    many = _form({f"field{number}": b"x" for number in range(5000)}, b"a.jsonl", b"")
    two_files = right.removesuffix(b"--\r\n") + b"\r\n" + right
    bodies = (
        right[: random_.randrange(len(right))],
        right.replace(b"\r\n", b"\n"),
        right.replace(b'name="purpose"', b"name=purpose"),
        right.replace(b'; name="file"', b""),
        right.replace(b'; filename="a.jsonl"', b""),
        right.replace(b"content-type", b"x-" + b"y" * random_.choice((100, 100_000))),
        right.replace(_BOUNDARY, b"another"),
        many,
        two_files,
        _form({"purpose": b"x" * 200_000}, b"a.jsonl", b""),
        _form({"purpose": b"fine-tune", "extra": b"1"}, b"a.jsonl", right_lines(2)),
        random_.randbytes(1000),
        b"",
    )
    types = (
        _multipart(),
        _multipart(),
        _multipart(),
        _multipart("; charset=unicode_escape"),
        _multipart("; charset=zlib"),
        _multipart("; charset=utf-16"),
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 1000,
        "multipart/mixed; boundary=a-boundary",
        "application/x-www-form-urlencoded",
        "application/json",
        "text/plain",
        "",
    )
    return "wrong_form", random_.choice(bodies), random_.choice(types)


def _escaped_name(random_: random.Random) -> tuple[str, bytes, str]:
    body = _form({"purpose": b"fine-tune"}, random_.choice((b"\\ud800", b"\\x00", b"\\U0010ffff")), right_lines(2))
    return "escaped_name", body, _multipart("; charset=unicode_escape")


_FORMS: Sequence[Callable[[random.Random], tuple[str, bytes, str]]] = (_wrong_form, _wrong_form, _escaped_name)
