"""Damaged and malformed files of prepared data: manifests and NumPy archives, each refused in one line."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Content = dict[str, Any]
Arrays = dict[str, np.ndarray]


def _with(**entries: object) -> Callable[[Content], bytes]:
    """Return a change of a manifest: `files__train__size=1` sets content["files"]["train"]["size"]."""

    def change(content: Content) -> bytes:
        for path, value in entries.items():
            *folders, last = path.split("__")
            inner: Any = content
            for key in folders:
                inner = inner[int(key)] if isinstance(inner, list) else inner[key]
            inner[int(last) if isinstance(inner, list) else last] = value
        return json.dumps(content).encode()

    return change


def _text(change: Callable[[str], str]) -> Callable[[Content], bytes]:
    return lambda content: change(json.dumps(content)).encode("utf-8", "surrogatepass")


def _without(*path: str) -> Callable[[Content], bytes]:
    def change(content: Content) -> bytes:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return json.dumps(content).encode()

    return change


_NUMBERS: tuple[object, ...] = (0, -1, True, False, None, "5", 5.0, 5.5, 2**31 + 1, 2**63, 10**400, [5], {})

# Each returns the damaged manifest for the content of a whole one of Terabyte data, without its checksum.
MANIFESTS: dict[str, Callable[[Content], bytes]] = {
    "empty": lambda content: b"",
    "null": lambda content: b"null",
    "list": lambda content: json.dumps([content]).encode(),
    "twice": _text(lambda text: text + text),
    "byte order mark": _text(lambda text: "\ufeff" + text),
    "UTF-16": lambda content: json.dumps(content).encode("utf-16"),
    "invalid UTF-8": lambda content: json.dumps(content).encode().replace(b"day_0", b"day_\xff"),
    "lone surrogate": _text(lambda text: text.replace("day_0", "day_\ud800")),
    "zero bytes": lambda content: bytes(5000),
    "deep list": lambda content: b"[" * 200_000 + b"]" * 200_000,
    "deep flags": _text(
        lambda text: text.replace('"flags": {', '"flags": {"x": ' + "[" * 900 + "]" * 900 + ", ", 1)
    ),
    "two megabytes": _text(lambda text: text + " " * (2 << 20)),
    "long number": _text(lambda text: text.replace('"counts": [', '"counts": [' + "9" * 5000 + ", ", 1)),
    "NaN": _with(flags__data_sub_sample_rate=float("nan")),
    "infinity": _with(counts__3=float("inf")),
    "1e999": _text(lambda text: text.replace('"counts": [', '"counts": [1e999, ', 1)),
    "repeated key": _text(lambda text: text.replace("{", '{"counts": [], ', 1)),
    "repeated inner key": _text(lambda text: text.replace('"size":', '"size": 160, "size":', 1)),
    "unknown key": _with(colour="red"),
    "unknown key with a newline": _with(**{"a\nb\x1b[31m": 1}),
    "unknown flag": _with(flags__colour="red"),
    "unknown entry of a file": _with(files__train__colour="red"),
    "unknown split": _with(files__more={"name": "x", "size": 0, "mtime_ns": 0, "crc32": 0}),
    "no inputs": _with(inputs=[]),
    "23 inputs": lambda content: _with(inputs=content["inputs"][:-1])(content),
    "25 inputs": lambda content: _with(inputs=[*content["inputs"], content["inputs"][0]])(content),
    "inputs as an object": _with(inputs={"day_0": 1}),
    **{
        f"input named {name!r}": _with(inputs__0__name=name)
        for name in (
            "",
            ".",
            "..",
            "../day_0",
            "/etc/passwd",
            "a/b",
            "day_0/",
            "a\nb",
            "a\0b",
            "\x1b[31m",
            "\x9b1m",
        )
    },
    "input named by a number": _with(inputs__0__name=3),
    "repeated input": lambda content: _with(inputs__1=content["inputs"][0])(content),
    "empty input": _with(inputs__0__size=0),
    "input of negative size": _with(inputs__0__size=-1),
    "input with a checksum": _with(inputs__0__crc32=5),
    "split that climbs out": _with(files__train__name="../../x_train.bin"),
    **{f"count {count!r}": _with(counts__3=count) for count in _NUMBERS},
    "25 counts": lambda content: _with(counts=content["counts"][:-1])(content),
    "27 counts": lambda content: _with(counts=[*content["counts"], 5])(content),
    "counts as text": _with(counts="5" * 26),
    **{
        f"size {size!r}": _with(files__train__size=size)
        for size in (0, -160, 159, True, None, "160", 160.0, 2**63, 160 * 10**9)
    },
    "sizes exchanged": lambda content: _with(
        files__train__size=content["files"]["test"]["size"], files__test__size=content["files"]["train"]["size"]
    )(content),
    "no test rows": _with(files__test__size=0),
    **{f"checksum {crc32!r}": _with(files__val__crc32=crc32) for crc32 in (None, -1, 2**32, "0", True, 1.0)},
    "missing split": _without("files", "val"),
    "missing size": _without("files", "train", "size"),
    "modification time as text": _with(files__train__mtime_ns="now"),
    "modification time of 2^63": _with(files__train__mtime_ns=2**63),
    **{f"rows of a day {rows!r}": _with(rows_per_day__0=rows) for rows in (-1, 0, True, 1.5, None, 10**30)},
    "23 days": lambda content: _with(rows_per_day=content["rows_per_day"][:-1])(content),
    "days as an object": _with(rows_per_day={}),
    "rows moved between days": lambda content: _with(
        rows_per_day__0=content["rows_per_day"][0] + 2, rows_per_day__23=content["rows_per_day"][23] - 2
    )(content),
    **{
        f"{flag} {value!r}": _with(**{f"flags__{flag}": value})
        for flag, values in {
            "data_set": ("kagle", "", None, 1, ["terabyte"]),
            "max_ind_range": (0, -2, 1.0, True, "5", 2**63),
            "data_randomize": ("some", None, True),
            "data_sub_sample_rate": (1.0, -0.5, "0", True, None),
            "numpy_rand_seed": (-1, 2**32, 1.5, None),
            "bad_rows": ("keep", 0, None),
        }.items()
        for value in values
    },
    "flags as a list": _with(flags=[]),
    "flags of an archive with others": _with(flags__adopted="terabyte"),
    "adopted from nothing": _with(flags={"adopted": True}),
    "bad rows as a list": _with(bad_rows=[]),
    "bad rows of a file elsewhere": _with(bad_rows={"../day_0": {"label": 1}}),
    "bad rows as a number": _with(bad_rows={"day_0": 3}),
    "negative bad rows": _with(bad_rows={"day_0": {"label": -1}}),
    "archive without a checksum": _with(archive={"name": "x.npz", "size": 5, "mtime_ns": 0, "crc32": None}),
    "archive elsewhere": _with(archive={"name": "/x.npz", "size": 5, "mtime_ns": 0, "crc32": 0}),
    "archive as text": _with(archive="x.npz"),
    **{f"version {version!r}": _with(format_version=version) for version in (0, 2, True, "1", 1.0, None, 10**99)},
    "wrong checksum": _with(manifest_crc32=1),
    "checksum null": _with(manifest_crc32=None),
    "checksum as text": _with(manifest_crc32="0"),
}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP archive; the names are those of arrays, without .npy."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file; one of objects is pickled."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return the beginning of a .npy file with the given header."""
    length = (len(text) + 1).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text.encode("latin-1") + b"\n"


def _described(array: np.ndarray, **changes: object) -> bytes:
    """Return the array with another header: descr, fortran_order or shape."""
    facts = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **changes}
    return header(repr(facts)) + array.tobytes()


def _member(name: str, make: Callable[[np.ndarray], bytes], compression: int = zipfile.ZIP_STORED) -> Any:
    """Return a change of an archive: array `name` becomes the bytes that `make` returns for it."""

    def change(arrays: Arrays) -> bytes:
        members = {each: npy(array) for each, array in arrays.items()}
        return zipped({**members, name: make(arrays[name])}, compression)

    return change


def _flipped(at: float) -> Callable[[Arrays], bytes]:
    def change(arrays: Arrays) -> bytes:
        content = bytearray(zipped({name: npy(array) for name, array in arrays.items()}))
        content[int(at * len(content))] ^= 1
        return bytes(content)

    return change


def _repeated(arrays: Arrays) -> bytes:
    """Return an archive in which X_int appears twice, with different contents."""
    file = io.BytesIO(zipped({name: npy(array) for name, array in arrays.items()}))
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("X_int.npy", npy(arrays["X_int"] + 1))
    return file.getvalue()


def _all_negative(arrays: Arrays) -> bytes:
    shapes = {"X_int": (-1, 13), "X_cat": (-1, 26), "y": (-1,)}
    return zipped({name: _described(arrays[name], shape=shape) for name, shape in shapes.items()})


def _all_huge(arrays: Arrays) -> bytes:
    """Return an archive that claims 2^40 rows, most of them zeros that take no space."""
    shapes = {"X_int": (2**40, 13), "X_cat": (2**40, 26), "y": (2**40,)}
    members = {name: _described(arrays[name], shape=shape) for name, shape in shapes.items()}
    return zipped({**members, "counts": npy(arrays["counts"])}, zipfile.ZIP_DEFLATED)


_SHAPES = ((), (-1,), (-1, 13), (0, 13), (2**62, 13), (2**63, 13), (10**30,), (True, 13), (2.0, 13), "x")

# Each returns the bytes of a damaged archive for the arrays X_int, X_cat, y and counts of a whole one.
ARCHIVES: dict[str, Callable[[Arrays], bytes]] = {
    "empty file": lambda arrays: b"",
    "no archive": lambda arrays: b"x" * 1000,
    "a single array": lambda arrays: npy(arrays["X_int"]),
    "empty archive": lambda arrays: zipped({}),
    "shapes of -1": _all_negative,
    "shapes of 2^40": _all_huge,
    **{
        f"{name} of shape {shape}": _member(name, partial(_described, shape=shape))
        for name in ("X_int", "y", "counts")
        for shape in _SHAPES
    },
    "longer than its shape": _member("X_cat", lambda array: npy(array) + b"more"),
    "a row longer than its shape": _member("X_cat", lambda array: npy(array) + bytes(array[0].nbytes)),
    "shorter than its shape": _member("X_cat", lambda array: npy(array)[:-4]),
    "counts longer than their shape": _member("counts", lambda array: npy(array) + b"more"),
    "counts shorter than their shape": _member("counts", lambda array: npy(array)[:-4]),
    "header only": _member("X_int", lambda array: npy(array)[:128]),
    "objects": _member("X_int", lambda array: npy(array.astype(object))),
    "objects as counts": _member("counts", lambda array: npy(array.astype(object))),
    "text": _member("X_int", lambda array: npy(array.astype(str))),
    "complex": _member("X_int", lambda array: npy(array.astype(complex))),
    "structured": _member("y", lambda array: npy(array.astype([("a", "<i4"), ("b", "<i4")]))),
    "dates": _member("y", lambda array: npy(array.astype("M8[s]"))),
    "unknown type": _member("y", lambda array: _described(array, descr="<q9")),
    "wrong magic": _member("y", lambda array: b"\x93NUMPX" + npy(array)[6:]),
    "version 9": _member("y", lambda array: b"\x93NUMPY\x09\x00" + npy(array)[8:]),
    "header that is code": _member("y", lambda array: header("__import__('os').getpid()") + array.tobytes()),
    "header that is a list": _member("y", lambda array: header("[1, 2]") + array.tobytes()),
    "header without a shape": _member("y", lambda array: header("{'descr': '<i4'}") + array.tobytes()),
    "header of a megabyte": _member("y", lambda array: header("(" * (1 << 20), (2, 0)) + array.tobytes()),
    "header longer than the file": _member("y", lambda array: b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{"),
    "repeated array": _repeated,
    "flipped bit in the middle": _flipped(0.5),
    "flipped bit in the directory": _flipped(0.995),
    "no counts": _member("counts", lambda array: npy(array[:0])),
    "25 counts": _member("counts", lambda array: npy(array[:25])),
    "counts in two dimensions": _member("counts", lambda array: npy(array.reshape(2, 13))),
    "counts of 0": _member("counts", lambda array: npy(array * 0)),
    "negative counts": _member("counts", lambda array: npy(-array)),
    "fractional counts": _member("counts", lambda array: npy(array + 0.5)),
    "counts that are NaN": _member("counts", lambda array: npy(array * np.nan)),
    "counts beyond 2^31": _member("counts", lambda array: npy(array.astype(np.int64) + 2**31)),
    "boolean counts": _member("counts", lambda array: npy(array > 0)),
    "a gigabyte of counts": _member(
        "counts",
        lambda array: header(repr({"descr": "<i4", "fortran_order": False, "shape": (1 << 28,)})) + bytes(1 << 22),
        zipfile.ZIP_DEFLATED,
    ),
}

# The same for *_fea_count.npz: the damaged archives whose counts are damaged.
COUNTS = {name: make for name, make in ARCHIVES.items() if "counts" in name}
