"""Checkpoint files: written atomically, and read without trusting their contents.

They have the format of `torch.save`, and `torch.load` reads them, but neither is used. `torch.save` copies all
tables to the host at once. `torch.load` opens the path several times, does not check the CRC-32s of a mapped file,
and allows functions that a small file can use to allocate any memory.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickletools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mlperf.training.checkpoint_archive import (
    Archive,
    DamagedArchive,
    Record,
    is_archive,
    read_archive,
    record_digest,
)
from mlperf.training.checkpoint_failures import reading, writing
from mlperf.training.checkpoint_legacy import is_legacy, read_legacy
from mlperf.training.checkpoint_pickle import MAX_PICKLE_BYTES, read_pickle
from mlperf.training.checkpoint_records import Records
from mlperf.training.checkpoint_values import DamagedPickle, UnsafePickle
from mlperf.training.checkpoint_writer import write_archive
from mlperf.util.errors import RunError
from mlperf.util.files import atomic_file, open_regular, read_fully_at
from mlperf.util.memory import require_memory

# Entries with the weights in checkpoints of other programs.
_WEIGHTS = ("state_dict", "model_state_dict", "model")

# Follows the pickle of our own checkpoints, where other programs do not look. A file in which it stands without
# the digest was damaged or repacked; a file that another program saved has neither.
_HAS_DIGEST = b"\nmlperf: the comment of this archive has a digest\n"

_MAX_COPIED = 1024  # bytes; numbers that are tensors, which are looked at before everything is verified


def write_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` to `path` atomically, with a digest. RunError if that fails."""
    with writing(path), atomic_file(path) as file:
        write_archive(file.fileno(), dict(contents), _HAS_DIGEST)
        record_digest(file.fileno())


class _Source(Protocol):
    """Copies and verifies tensors."""

    def fill(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None: ...

    def verify(self) -> None: ...


@dataclass(frozen=True)
class CheckpointFile:
    """An open checkpoint, a file or the folder of a sharded one.

    contents: its entries. Tensors are on the CPU; those of a zip archive are views of the mapped file and need no
    memory, those of a folder are StoredTensors. They may be damaged until they were copied with `fill`, or
    `verify` was called.
    """

    path: Path
    contents: dict[str, Any]
    _source: _Source

    def fill(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy the second tensor of each pair, from `contents`, to the first, of the same shape, and verify it.

        If the first tensor has another dtype, the elements are converted, rounded to the nearest value.

        RunError if a tensor is damaged or cannot be read. The first tensors are undefined then.
        """
        with reading(self.path):
            self._source.fill(pairs)

    def verify(self) -> None:
        """Verify everything in the file that was not verified yet. RunError if it is damaged or cannot be read."""
        with reading(self.path):
            self._source.verify()


@contextmanager
def open_checkpoint(
    path: Path, model_bytes: int = 0, *, weights_suffice: bool = False
) -> Iterator[CheckpointFile]:
    """Open a checkpoint without executing code from the file. The path is opened once.

    A file in PyTorch's legacy format is read into memory and must fit there together with the model.

    model_bytes: memory of the model that is allocated but not yet resident. weights_suffice: a file with a bare
    state_dict, or with one as the entry "model_state_dict" or "model", is read as {"state_dict": ...}.

    RunError, in one line, if the file is missing, unreadable, damaged, not a checkpoint, refers to code, or needs
    more memory than is available.
    """
    with _opened_source(path, model_bytes) as (found, source):
        contents = _with_state_dict(found) if weights_suffice else found
        if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
            raise RunError(f"{path}: a PyTorch file, but not a checkpoint of this benchmark: it has no state_dict")
        yield CheckpointFile(path, contents, source)


def _with_state_dict(contents: Any) -> Any:
    """Return the contents of a file of any program with its weights as `state_dict`, if it has weights."""
    if not isinstance(contents, dict) or not contents:
        return contents
    if all(isinstance(value, torch.Tensor) for value in contents.values()):
        return {"state_dict": contents}
    name = next((name for name in _WEIGHTS if isinstance(contents.get(name), dict)), None)
    if name is None:
        return contents
    return {**{key: value for key, value in contents.items() if key != name}, "state_dict": contents[name]}


@contextmanager
def _opened_source(path: Path, model_bytes: int) -> Iterator[tuple[Any, _Source]]:
    with reading(path):
        is_folder = path.is_dir()
    if is_folder:
        from mlperf.training.sharded_reader import opened_shards  # imports torch.distributed.checkpoint

        require_memory(model_bytes, str(path))
        with opened_shards(path) as shards:
            yield shards.contents, shards
        return
    with _opened(path) as descriptor:
        with reading(path):
            contents, records = _read(path, descriptor, model_bytes)
        yield contents, records


def read_checkpoint(path: Path, model_bytes: int = 0) -> dict[str, Any]:
    """Return the contents of a checkpoint, all verified. Parameters and errors are those of `open_checkpoint`."""
    with open_checkpoint(path, model_bytes) as file:
        file.verify()
        return file.contents


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is one of torch.save, in its zip format or the older pickle format.

    OSError if it cannot be read.
    """
    with open_regular(path) as file:
        try:
            if is_archive(file.fileno()):
                read_archive(file.fileno())
                return True
            return is_legacy(_beginning(file.fileno()))
        except DamagedArchive:
            return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file that is not empty. RunError if it cannot be opened, is empty or something else."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {error.strerror}") from None
    except ValueError:
        raise RunError(f"{str(path)!a}: the checkpoint cannot be read: no file can have this name") from None
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise RunError(f"{path}: empty file, not a checkpoint")
        yield file.fileno()


def _read(path: Path, descriptor: int, model_bytes: int) -> tuple[Any, Records]:
    """Return the contents of an open file, and its records, which are not verified yet."""
    if is_archive(descriptor):
        require_memory(model_bytes, str(path))
        archive = read_archive(descriptor)
        mapped = _mapped(descriptor)
        records = Records(descriptor, archive.records.values(), np.frombuffer(mapped, np.uint8).ctypes.data)
        return _unpickled(descriptor, archive, mapped), records
    beginning = _beginning(descriptor)
    if not is_legacy(beginning):
        named = _first_callable(_beginning(descriptor, MAX_PICKLE_BYTES))
        if named is not None and beginning.startswith((b"\x80", b"(", b"c")):
            raise UnsafePickle(f"it references {named}, which could execute code when loaded")
        raise DamagedPickle("it has neither of the two formats of torch.save")
    require_memory(os.fstat(descriptor).st_size + model_bytes, str(path))
    return read_legacy(memoryview(_mapped(descriptor))), Records(descriptor, [], 0)


def _mapped(descriptor: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    except ValueError:  # an empty file
        raise DamagedArchive("it was truncated while it was read") from None


def _beginning(descriptor: int, size: int = 16) -> bytes:
    """Return the first bytes of a file, up to `size`."""
    content = bytearray(min(size, os.fstat(descriptor).st_size))
    return bytes(content[: read_fully_at(descriptor, memoryview(content), 0)])


def _unpickled(descriptor: int, archive: Archive, mapped: mmap.mmap) -> Any:
    """Return the contents of an archive, with tensors that are views of the mapped file."""
    if archive.recorded_digest not in (None, archive.digest):
        raise DamagedArchive("its headers do not have their digest")
    order = archive.records.get("byteorder")
    if order is not None and _verified_content(descriptor, order) != b"little":
        raise DamagedArchive("it was saved on a big-endian machine")
    content = _verified_content(descriptor, archive.records["data.pkl"])

    def storage(key: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
        record = archive.records.get(f"data/{key}")
        if record is None or record.size != elements * dtype.itemsize:
            raise DamagedPickle(f"storage {key[:80]!a} does not have {elements} elements")
        if elements == 0:
            return torch.empty(0, dtype=dtype)
        if record.size <= _MAX_COPIED:
            return torch.frombuffer(bytearray(_verified_content(descriptor, record)), dtype=dtype)
        return torch.frombuffer(mapped, dtype=dtype, count=elements, offset=record.offset)

    contents, end = read_pickle(memoryview(content), storage)
    if content[end:] == _HAS_DIGEST and archive.recorded_digest is None:
        raise DamagedArchive("its digest is missing; it was damaged, or packed again")
    if content[end:] not in (b"", _HAS_DIGEST):
        raise DamagedPickle("bytes were added to its pickle")
    return contents


def _verified_content(descriptor: int, record: Record) -> bytes:
    """Return the contents of a small record, after comparing them with their CRC-32."""
    if record.size > MAX_PICKLE_BYTES:
        raise DamagedPickle(f"its {record.name} has {record.size} bytes; up to {MAX_PICKLE_BYTES} are allowed")
    content = bytearray(record.size)
    if read_fully_at(descriptor, memoryview(content), record.offset) < record.size:
        raise DamagedArchive("it is truncated")
    if record.crc32 not in (None, zlib.crc32(content)):
        raise DamagedArchive(f"the contents of {record.name} do not have their CRC-32")
    return bytes(content)


def _first_callable(content: bytes) -> str | None:
    """Return the first function or class that a plain pickle references, None if there is none."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in itertools.islice(pickletools.genops(content), 100_000):
            if opcode.name == "GLOBAL" and argument is not None:
                return ascii(str(argument).replace(" ", ".")[:80])[1:-1]
            if opcode.name == "STACK_GLOBAL":
                return ascii(".".join(strings[-2:])[:80])[1:-1]
            if isinstance(argument, str):
                strings.append(argument)
    except (OSError, ValueError, EOFError):
        pass
    return None
