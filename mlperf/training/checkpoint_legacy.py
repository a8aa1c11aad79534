"""PyTorch's older format of checkpoints, without zip: five pickles, followed by the elements of all storages.

It has no checksums. What can be checked is: the storages that the tensors need are there, in their sizes, and
nothing is missing or follows.
"""

from __future__ import annotations

import struct
from typing import Any

import torch

from mlperf.training.checkpoint_pickle import Storages, read_pickle
from mlperf.training.checkpoint_values import DamagedPickle

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLED = b"\x8a\n" + _MAGIC.to_bytes(10, "little")
_VERSION = 1001


def is_legacy(beginning: bytes) -> bool:
    """Return whether a file with these first 16 bytes or more is in the older format."""
    return _MAGIC_PICKLED in beginning[:16]


def read_legacy(content: memoryview) -> Any:
    """Return the object in a file in the older format, with tensors that are views of `content`.

    UnsafePickle and DamagedPickle as for `read_pickle`.
    """
    position = 0

    def read_next(storages: Storages) -> Any:
        nonlocal position
        value, size = read_pickle(content[position:], storages)
        position += size
        return value

    magic, version, system = (read_next(_no_storage) for _ in range(3))
    if magic != _MAGIC or version != _VERSION or not isinstance(system, dict):
        raise DamagedPickle("it has an unknown version of the older format")
    if system.get("little_endian") is not True:
        raise DamagedPickle("it was saved on a big-endian machine")
    # The storages follow their users, so the object is read twice: which storages it needs, then with them.
    start = position
    needed: dict[str, tuple[torch.dtype, int]] = {}

    def note(key: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
        if needed.setdefault(key, (dtype, elements)) != (dtype, elements):
            raise DamagedPickle(f"storage {key[:80]!a} has two sizes")
        if not 0 <= elements * dtype.itemsize <= len(content):
            raise DamagedPickle(f"storage {key[:80]!a} of {elements} elements is larger than the file")
        return torch.frombuffer(content, dtype=dtype, count=elements) if elements else torch.empty(0, dtype=dtype)

    read_next(note)
    keys = read_next(_no_storage)
    storages = _read_storages(content, position, keys, needed)
    return read_pickle(content[start:], lambda key, dtype, elements: storages[key])[0]


def _no_storage(key: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
    raise DamagedPickle("its header is damaged")


def _read_storages(
    content: memoryview, offset: int, keys: Any, needed: dict[str, tuple[torch.dtype, int]]
) -> dict[str, torch.Tensor]:
    """Return the storages, which start at `offset`. Each is its number of elements (int64), then the elements."""
    if not isinstance(keys, list) or {*map(type, keys)} - {str} or sorted(keys) != sorted(needed):
        raise DamagedPickle("its list of storages is damaged")
    storages: dict[str, torch.Tensor] = {}
    for key in keys:
        dtype, elements = needed[key]
        end = offset + 8 + elements * dtype.itemsize
        if end > len(content):
            raise DamagedPickle("it is truncated")
        if struct.unpack_from("<q", content, offset) != (elements,):
            raise DamagedPickle(f"storage {key[:80]!a} does not have {elements} elements")
        # Copied, because elements at odd offsets are not aligned.
        content_bytes = torch.frombuffer(content, dtype=torch.uint8)[offset + 8 : end]
        storages[key] = content_bytes.clone().view(dtype)
        offset = end
    if offset != len(content):
        raise DamagedPickle(f"{len(content) - offset} bytes were added at its end")
    return storages
