"""Checkpoint files for tests: small contents, damage, archives of other programs, and hand-written pickles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def small_contents() -> dict[str, Any]:
    """Return contents with tensors, some of which share a storage, and all kinds of numbers."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(60, generator=generator)
    weights = {"a": torch.randn(8, 4, generator=generator), "b": shared[:20].view(5, 4), "c": shared[20:]}
    return {
        "state_dict": {**weights, "none": torch.empty(0, 4), "half": weights["a"].bfloat16(), "t": weights["a"].T},
        "epoch": 1,
        "iter": 70_000,
        "train_loss": np.float64(0.5),
        "test_auc": 0.75,
        "continuation": {"seed": -3, "large": 1 << 40, "order": [1, (2, 3)], "shuffled": True, "none": None},
    }


def is_same(a: Any, b: Any) -> bool:
    """Return whether two contents are equal in types, values and order."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(is_same, a, b))
    return type(a) is type(b) and bool(a == b)


def saved_bytes(contents: object, *, legacy: bool = False) -> bytes:
    """Return the file that torch.save writes."""
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def members(archive: bytes) -> list[tuple[str, bytes]]:
    """Return names and contents of the files in an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


class _Stream(io.BytesIO):
    """A file without positions, as a pipe."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError

    def seek(self, *place: int) -> int:
        raise OSError


def packed(
    files: Iterable[tuple[str, bytes]],
    method: int = zipfile.ZIP_STORED,
    *,
    streamed: bool = False,
    zip64: bool = False,
) -> bytes:
    """Return an archive as Python's zipfile writes it. streamed: to a pipe, with sizes after the contents."""
    file = _Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                member.write(content)
    return file.getvalue()


def compressed(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a compressed archive, as `zip -9` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return file.getvalue()


def with_pickle(operations: bytes, **storages: bytes) -> bytes:
    """Return an archive whose pickle has these operations, between the protocol and the end."""
    files = [("archive/data.pkl", b"\x80\x02" + operations + b"."), ("archive/byteorder", b"little")]
    return packed([*files, *((f"archive/data/{key}", content) for key, content in storages.items())])


def flipped(content: bytes, bit: int) -> bytes:
    """Return `content` with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def write(folder: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / "model.pt"
    path.write_bytes(content)
    return path
