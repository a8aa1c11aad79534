"""Files of data that are well-formed, but cannot be what they stand for, and things that are no files."""

from __future__ import annotations

import io
import json
import math
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from damaged_data import header, zipped
from odd_files import ODD_FILES

from hostile.contents import RunsCode

# Writes something in place of the file at a path.
Write = Callable[[Path, random.Random], None]


def _instead(make: Callable[[Path], object]) -> Write:
    """Remove the file and create something else at its path."""

    def write(path: Path, draw: random.Random) -> None:
        path.unlink()
        make(path)

    return write


def _bytes(content: bytes) -> Write:
    def write(path: Path, draw: random.Random) -> None:
        path.write_bytes(content)

    return write


_NO_FILE: dict[str, Write] = {
    **{
        f"a {name}": _instead(make)
        for name, make in ODD_FILES.items()
        if name not in ("device", "link to nothing")
    },
    **{device: _instead(partial(os.symlink, device)) for device in ("/dev/zero", "/dev/null")},
    "empty": _bytes(b""),
    "a line": _bytes(b"hello\n"),
}


def _json_value(value: Any) -> Write:
    """Replace one value of a JSON file, drawn from all of them, and drop its checksum."""

    def write(path: Path, draw: random.Random) -> None:
        content = json.loads(path.read_text())
        content.pop("manifest_crc32", None)
        holders = list(_holders(content))
        holder, key = draw.choice(holders)
        if holder[key] is not None and holder[key] != value:
            holder[key] = value
        else:
            del content["files"]
        path.write_text(json.dumps(content))

    return write


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the containers of a JSON value that hold something of use, with the key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in ("mtime_ns", "inputs", "name", "archive", "bad_rows"):  # may differ, or be empty
            yield value, key
            yield from _holders(item)


_VALUES: tuple[Any, ...] = (None, "x", -1, 2**70, 1.5, [], {}, True, math.nan)
_JSON: dict[str, Write] = {
    **{f"a value is {value!r}": _json_value(value) for value in _VALUES},
    "200,000 brackets": _bytes(b"[" * 200_000),
    "a number of 100,000 digits": _bytes(b"9" * 100_000),
    "null": _bytes(b"null"),
    "not Unicode": _bytes(b'{"\xff": 1}'),
    "one key twice": _bytes(b'{"format_version": 1, "format_version": 2}'),
}


def _npz(**arrays: Any) -> Write:
    def write(path: Path, draw: random.Random) -> None:
        np.savez(path, **arrays)

    return write


def _npy(text: str, content: bytes = bytes(26 * 8)) -> Write:
    """Write an archive whose only array, counts, has the header `text`."""
    return _bytes(zipped({"counts": header(text) + content}))


def _facts(shape: str, kind: str = "<i8") -> str:
    """Return the header of an array of this shape."""
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"


def _bomb(path: Path, draw: random.Random) -> None:
    """An archive of a megabyte with a gigabyte of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("counts.npy", "w") as member:
        member.write(header(_facts("(134217728,)")))
        for _ in range(1024):
            member.write(bytes(1 << 20))
    path.write_bytes(file.getvalue())


_SHAPES = ("(-1,)", "(1000000000000000000,)", "(26, 1000000000000000)", "(9223372036854775808,)", "26", "(27,)")
_COUNTS: dict[str, Write] = {
    "no counts": _npz(other=np.ones(26, np.int64)),
    "27 counts": _npz(counts=np.full(27, 9)),
    "a scalar": _npz(counts=np.int64(26)),
    "two dimensions": _npz(counts=np.full((26, 2), 9)),
    "zeros": _npz(counts=np.zeros(26, np.int64)),
    "negative": _npz(counts=np.full(26, -5)),
    "beyond 64 bits": _npz(counts=np.full(26, 1e30)),
    "not numbers": _npz(counts=np.full(26, np.nan)),
    "fractions": _npz(counts=np.full(26, 5000.5)),
    "complex": _npz(counts=np.full(26, 5000j)),
    "text": _npz(counts=np.full(26, "x")),
    "dates": _npz(counts=np.full(26, 5000, "datetime64[s]")),
    "objects": _npz(counts=np.array([RunsCode()] * 26, object)),
    "records": _npz(counts=np.zeros(26, [("a", "<i8")])),
    "2 ** 50 rows each": _npz(counts=np.full(26, 2**50)),
    **{f"shape {shape}": _npy(_facts(shape)) for shape in _SHAPES},
    "longer than its shape": _npy(_facts("(26,)"), b"\x09".ljust(8, b"\0") * 30),
    "a header of code": _npy("__import__('os').mkdir('witness')"),
    "a header of 60,000 brackets": _npy("(" * 60_000),
    "a million times compressed": _bomb,
}
_FULL = np.full(26, 5000)
_ROWS: dict[str, Write] = {
    "no rows": _npz(X_int=np.zeros((0, 13)), X_cat=np.zeros((0, 26)), y=np.zeros(0), counts=_FULL),
    "other lengths": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((8, 26)), y=np.zeros(7), counts=_FULL),
    "25 columns": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 25)), y=np.zeros(9), counts=_FULL),
    "labels of 2": _npz(X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 26)), y=np.full(9, 2), counts=_FULL),
    "labels that are no numbers": _npz(
        X_int=np.zeros((9, 13)), X_cat=np.zeros((9, 26)), y=np.full(9, np.nan), counts=_FULL
    ),
    "ids beyond the counts": _npz(
        X_int=np.zeros((9, 13)), X_cat=np.full((9, 26), 5000), y=np.zeros(9), counts=_FULL
    ),
    "negative ids": _npz(X_int=np.zeros((9, 13)), X_cat=np.full((9, 26), -1), y=np.zeros(9), counts=_FULL),
    "no arrays": _npz(),
}
MALFORMED: dict[str, dict[str, Write]] = {
    "train split": _NO_FILE,
    "manifest": {**_NO_FILE, **_JSON},
    "manifest, verified": {**_NO_FILE, **_JSON},
    "counts": {**_NO_FILE, **_COUNTS},
    "test split without a manifest": _NO_FILE,
    "archive of rows": {**_NO_FILE, **_ROWS},
    "text": _NO_FILE,
    "stack distances": _NO_FILE,
}
