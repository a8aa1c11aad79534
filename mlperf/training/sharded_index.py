"""The file `checkpoint.json` of a sharded checkpoint: its entries, and where the elements of its tensors are.

It is read and checked before any other file. A digest of its values shows that it is as it was written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlperf.training.checkpoint_values import STORAGES
from mlperf.util.files import read_regular
from mlperf.util.printable import shown_name
from mlperf.util.strict_json import SchemaError, fields, file_name, items, parse_json, refuse, whole

INDEX_NAME = "checkpoint.json"
_FORMAT = "sharded checkpoint of dlrm-benchmark"
_VERSION = 1
_MAX_BYTES = 256 << 20
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 20
_PRIME = 2**127 - 1
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}
# An object with one of these keys stands for a value that JSON does not have.
_TENSOR, _FLOAT, _ITEMS = "$tensor", "$float", "$items"


@dataclass(frozen=True)
class StoredShard:
    """Elements of a rectangle of a tensor: `sizes` from `offsets` on, at byte `position` of `file`."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    position: int
    crc32: int


@dataclass(frozen=True)
class TensorIndex:
    """A tensor, and its shards, which contain each element once."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    shards: tuple[StoredShard, ...]

    def nbytes(self, shard: StoredShard) -> int:
        """Return the size of a shard in bytes."""
        return math.prod(shard.sizes) * self.dtype.itemsize


@dataclass(frozen=True)
class Index:
    """contents: the entries of the checkpoint, encoded. tensors: by name. files: their sizes in bytes, by name."""

    contents: Any
    tensors: Mapping[str, TensorIndex]
    files: Mapping[str, int]


def encoded(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value for JSON, with the names of tensors in place of the tensors, which are added to `tensors`.

    name: of the value. A weight has its name in the state_dict; other tensors are named by the keys on the way to
    them, such as opt_state_dict.state.0.sum. TypeError for values that a checkpoint cannot contain.
    """
    if isinstance(value, torch.Tensor):
        name = name.removeprefix("state_dict.")
        if name in tensors:
            raise TypeError(f"two tensors are named {shown_name(name)}")
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    prefix = f"{name}." if name else ""
    if isinstance(value, list | tuple):
        return [encoded(each, f"{prefix}{number}", tensors) for number, each in enumerate(value)]
    if not isinstance(value, Mapping):
        raise TypeError(f"{shown_name(name)} is a {type(value).__name__}, which a checkpoint cannot contain")
    found = {key: encoded(each, f"{prefix}{key}", tensors) for key, each in value.items()}
    if all(isinstance(key, str) and not key.startswith("$") for key in found):
        return found
    return {_ITEMS: [[key, each] for key, each in found.items()]}


def decoded(value: Any, tensor: Callable[[str], torch.Tensor], depth: int = 0) -> Any:
    """Return the value that `encoded` was given. tensor: returns the tensor of a name. SchemaError if damaged."""
    if depth > _MAX_DEPTH:
        raise SchemaError("its entries are nested too deeply")
    if isinstance(value, list):
        return [decoded(each, tensor, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: decoded(each, tensor, depth + 1) for key, each in value.items()}
    kind, content = next(iter(value.items()))
    if len(value) == 1 and kind == _TENSOR and isinstance(content, str):
        return tensor(content)
    if len(value) == 1 and kind == _FLOAT and content in ("nan", "inf", "-inf"):
        return float(content)
    if len(value) == 1 and kind == _ITEMS and isinstance(content, list):
        pairs = [items(pair, "a pair of an entry", (2,)) for pair in content]
        if all(type(key) in (str, int) for key, _ in pairs):
            return {key: decoded(each, tensor, depth + 1) for key, each in pairs}
    raise SchemaError(f"an entry is {shown_name(value)}, which stands for nothing")


def index_bytes(index: Index) -> bytes:
    """Return the content of the file."""
    body = {
        "format": _FORMAT,
        "version": _VERSION,
        "contents": index.contents,
        "tensors": {
            name: {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": tensor.shape,
                "shards": [vars(shard) for shard in tensor.shards],
            }
            for name, tensor in index.tensors.items()
        },
        "files": index.files,
    }
    return json.dumps({**body, "sha256": _digest(body)}, allow_nan=False).encode() + b"\n"


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def read_index(folder: Path) -> Index:
    """Return the index of a sharded checkpoint. OSError if it cannot be read, SchemaError if it is damaged."""
    body = parse_json(read_regular(folder / INDEX_NAME, _MAX_BYTES))
    if not isinstance(body, dict) or body.get("format") != _FORMAT:
        raise SchemaError("it is not the index of a sharded checkpoint of this program")
    if body.get("version") != _VERSION:
        refuse("version", body.get("version"), str(_VERSION))
    fields(body, "it", ("format", "version", "contents", "tensors", "files", "sha256"))
    if body.pop("sha256") != _digest(body):
        raise SchemaError("its values do not have their digest")
    files = body["files"]
    if not isinstance(files, dict):
        refuse("files", files, "an object")
    sizes = {
        file_name(name, "the name of a file"): whole(size, f"files.{name}", 0) for name, size in files.items()
    }
    tensors = body["tensors"]
    if not isinstance(tensors, dict):
        refuse("tensors", tensors, "an object")
    return Index(body["contents"], {name: _tensor(name, each, sizes) for name, each in tensors.items()}, sizes)


def foreign_files(folder: Path) -> list[str]:
    """Return the names in a folder that no sharded checkpoint has, sorted."""
    own = (INDEX_NAME, ".metadata")
    return sorted(name for name in os.listdir(folder) if name not in own and not name.endswith(".distcp"))


def is_sharded(folder: Path) -> bool:
    """Return whether a folder is a sharded checkpoint with an intact index. OSError if that cannot be read."""
    try:
        read_index(folder)
    except (SchemaError, FileNotFoundError):
        return False
    return True


def _tensor(name: str, value: Any, files: Mapping[str, int]) -> TensorIndex:
    where = f"tensors.{shown_name(name)}"
    value = fields(value, where, ("dtype", "shape", "shards"))
    if not isinstance(value["dtype"], str) or value["dtype"] not in _DTYPES:
        refuse(f"{where}.dtype", value["dtype"], f"one of {', '.join(_DTYPES)}")
    shape = _numbers(value["shape"], f"{where}.shape", range(_MAX_DIMENSIONS + 1))
    if not isinstance(value["shards"], list):
        refuse(f"{where}.shards", value["shards"], "a list")
    shards = tuple(_shard(each, f"{where}.shards.{number}", shape) for number, each in enumerate(value["shards"]))
    tensor = TensorIndex(shape, _DTYPES[value["dtype"]], shards)
    for shard in shards:
        if shard.position + tensor.nbytes(shard) > files.get(shard.file, -1):
            raise SchemaError(f"{where} has a shard that is not in a file")
    _check_division(tensor, where)
    return tensor


def _shard(value: Any, where: str, shape: tuple[int, ...]) -> StoredShard:
    value = fields(value, where, ("offsets", "sizes", "file", "position", "crc32"))
    offsets = _numbers(value["offsets"], f"{where}.offsets", (len(shape),))
    sizes = _numbers(value["sizes"], f"{where}.sizes", (len(shape),))
    if any(offset + size > whole_size for offset, size, whole_size in zip(offsets, sizes, shape, strict=True)):
        raise SchemaError(f"{where} is not inside its tensor")
    position = whole(value["position"], f"{where}.position", 0)
    crc32 = whole(value["crc32"], f"{where}.crc32", 0, 0xFFFFFFFF)
    return StoredShard(offsets, sizes, file_name(value["file"], f"{where}.file"), position, crc32)


def _numbers(value: Any, where: str, lengths: range | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(whole(each, where, 0, 1 << 48) for each in items(value, where, lengths))


def _check_division(tensor: TensorIndex, where: str) -> None:
    """Raise SchemaError unless the shards contain each element of the tensor once."""
    if sum(math.prod(shard.sizes) for shard in tensor.shards) != math.prod(tensor.shape):
        raise SchemaError(f"{where} has shards with more or fewer elements than it")
    if tensor.dtype.itemsize * math.prod(tensor.shape) >= 1 << 62:
        raise SchemaError(f"{where} is too large")
    # Their number of elements is right, so none is missing if none is there twice.
    points = [secrets.randbelow(_PRIME) for _ in tensor.shape]
    whole_tensor = _polynomial([0] * len(tensor.shape), tensor.shape, points)
    if sum(_polynomial(each.offsets, each.sizes, points) for each in tensor.shards) % _PRIME != whole_tensor:
        raise SchemaError(f"{where} has shards that overlap")


def _polynomial(offsets: Sequence[int], sizes: Sequence[int], points: Sequence[int]) -> int:
    """Return the sum of x^i * y^j * ... over the elements (i, j, ...) of a rectangle, modulo a prime.

    x, y, ...: the points. Shards with the same sum as the whole tensor at random points divide it, but for a
    chance of 2^-75. Comparing them with each other would take hours in a file that a small program can write.
    """
    factors = (
        pow(point, offset + size, _PRIME) - pow(point, offset, _PRIME)
        for offset, size, point in zip(offsets, sizes, points, strict=True)
    )
    return math.prod(factors) % _PRIME
