"""Formats that people send where UTF-8 text belongs, known by their first bytes, and what to do instead."""

_UNPACK = "unpack it, and send the text"
_EXPORT = "export it as JSON Lines in UTF-8"
_SAVE = "save it as UTF-8"

_SIGNATURES = (
    (b"\x1f\x8b", "gzip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard", _UNPACK),
    (b"BZh", "bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "xz", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"PK\x03\x04", "a zip archive, as .xlsx and .docx files are too", f"{_UNPACK}, or export the sheet as JSON Lines"),
    (b"PAR1", "Parquet", _EXPORT),
    (b"ARROW1", "Arrow", _EXPORT),
    (b"\xff\xff\xff\xff", "an Arrow stream", _EXPORT),
    (b"Obj\x01", "Avro", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", _EXPORT),
    (b"\x80\x04\x95", "a Python pickle", _EXPORT),
    (b"%PDF-", "PDF", _EXPORT),
    (b"\x89PNG", "a picture (PNG)", _EXPORT),
    (b"\xff\xd8\xff", "a picture (JPEG)", _EXPORT),
    (b"\xff\xfe\x00\x00", "UTF-32", _SAVE),
    (b"\x00\x00\xfe\xff", "UTF-32", _SAVE),
    (b"\xff\xfe", "UTF-16", _SAVE),
    (b"\xfe\xff", "UTF-16", _SAVE),
)
_WIDE_CHARACTERS = (
    (b"\x00\x00\x00x", "UTF-32"),
    (b"x\x00\x00\x00", "UTF-32"),
    (b"\x00x\x00x", "UTF-16"),
    (b"x\x00x\x00", "UTF-16"),
)
"""ASCII without a byte order mark, as JSON begins; every byte but NUL is an x."""


def foreign_format(head: bytes) -> str | None:
    """What a text that begins so is instead, and the remedy; None: nothing speaks against a text in UTF-8."""
    for signature, name, remedy in _SIGNATURES:
        if head.startswith(signature):
            return f"this is {name}; {remedy}"
    pattern = bytes(byte and ord("x") for byte in head[:4])
    wide = dict(_WIDE_CHARACTERS).get(pattern)
    return None if wide is None else f"this is {wide}; {_SAVE}"
