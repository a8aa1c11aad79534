"""Write the archive of a checkpoint, tensor by tensor and block by block, on any device.

`torch.save` writes whole storages. All tables are in one, which it copies to the host if it is on a GPU. Here,
each tensor is a record of its own. Tensors on the CPU are written from their own memory, others through one block
of host memory per thread. One thread writes while the others copy and compute CRC-32s. Python's zipfile does
these in turn, and does not align the contents.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlperf.training.checkpoint_values import STORAGES
from mlperf.training.stored_tensor import StoredTensor
from mlperf.training.zip_headers import NewRecord, directory
from mlperf.util.crc32 import bytes_crc32, combine_crc32
from mlperf.util.files import write_fully_at
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.tensors import BLOCK_BYTES, flattened, is_plain, pieces, staging_buffer
from mlperf.util.threads import available_cores

_FOLDER = "archive"
_FORMAT_VERSION = b"3\n"  # of torch.save

_MAX_THREADS = 8

_STORAGE_TYPES = {dtype: getattr(torch, f"{name}Storage") for name, dtype in STORAGES.items()}


@dataclass(frozen=True)
class _Storage:
    """The storage of a tensor: the record `data/<key>`."""

    key: str
    dtype: torch.dtype
    elements: int


class _Pickler(pickle.Pickler):
    """Pickles like `torch.save`, but each tensor has a storage of its own, on the CPU. tensors: by key."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.tensors: list[torch.Tensor] = []

    def reducer_override(self, obj: Any) -> Any:
        """Return how a tensor is rebuilt."""
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        if not is_plain(obj) or obj.dtype not in _STORAGE_TYPES:
            raise TypeError(f"a checkpoint cannot contain {obj.dtype}, {obj.layout}, on {obj.device}")
        storage = _Storage(str(len(self.tensors)), obj.dtype, obj.numel())
        self.tensors.append(obj if isinstance(obj, StoredTensor) else obj.detach())
        shape = tuple(obj.shape)
        return torch._utils._rebuild_tensor_v2, (storage, 0, shape, _strides(shape), False, OrderedDict())

    def persistent_id(self, obj: Any) -> Any:
        """Return the description of a storage, None for other objects."""
        if not isinstance(obj, _Storage):
            return None
        return "storage", _STORAGE_TYPES[obj.dtype], obj.key, "cpu", obj.elements


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides))[: len(shape)]


@dataclass(frozen=True)
class Written:
    """An archive in a file. end: of the archive. tensors: their records, in the order of pickling."""

    end: int
    tensors: list[NewRecord]


def write_archive(descriptor: int, contents: object, pickle_suffix: bytes = b"", start: int = 0) -> Written:
    """Write `contents`, a value with tensors, from byte `start` of a file, as `torch.save` writes it.

    pickle_suffix: follows the pickle in its record. start: a multiple of 64. The offsets of the records are those
    in the archive. OSError if the file cannot be written, RuntimeError if a tensor cannot be copied to the host,
    TypeError if a tensor is not dense.
    """
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(contents)
    pickled.write(pickle_suffix)
    contents_by_name = {
        "data.pkl": _as_tensor(pickled.getvalue()),
        "byteorder": _as_tensor(sys.byteorder.encode()),
        **{f"data/{key}": tensor for key, tensor in enumerate(pickler.tensors)},
        "version": _as_tensor(_FORMAT_VERSION),
    }
    records, end = [], 0
    for name, tensor in contents_by_name.items():
        records.append(NewRecord(f"{_FOLDER}/{name}", tensor.numel() * tensor.element_size(), end))
        end = records[-1].end
    _write_contents(descriptor, list(zip(records, contents_by_name.values(), strict=True)), start)
    for record in records:
        write_fully_at(descriptor, memoryview(record.header()), start + record.start)
    ending = directory(records)
    write_fully_at(descriptor, memoryview(ending), start + end)
    return Written(start + end + len(ending), records[2:-1])


def _as_tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


@dataclass(frozen=True)
class _Block:
    """A part of a record's tensor, and its place in the file."""

    record: NewRecord
    offset: int
    elements: torch.Tensor


def _blocks(contents: Iterable[tuple[NewRecord, torch.Tensor]], start: int) -> Iterator[_Block]:
    """Yield all blocks in the order of the file. start: of the archive."""
    for record, tensor in contents:
        offset = start + record.offset
        for piece in pieces(tensor, BLOCK_BYTES // tensor.element_size()):
            yield _Block(record, offset, piece)
            offset += piece.numel() * piece.element_size()


def _write_contents(descriptor: int, contents: Sequence[tuple[NewRecord, torch.Tensor]], start: int) -> None:
    """Write the tensors of all records, and set the CRC-32s of the records.

    A tensor that is elsewhere is read before it is written, and given up before the next one is read.
    """
    together: list[tuple[NewRecord, torch.Tensor]] = []
    for record, tensor in contents:
        if isinstance(tensor, StoredTensor):
            _write_blocks(descriptor, together, start)
            together = []
            _write_blocks(descriptor, [(record, tensor.read())], start)
        else:
            together.append((record, tensor))
    _write_blocks(descriptor, together, start)


def _write_blocks(descriptor: int, contents: Sequence[tuple[NewRecord, torch.Tensor]], start: int) -> None:
    devices = {tensor.device for _, tensor in contents}
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the threads do not wait for the streams of other threads

    def make_worker(gate: Stages) -> Callable[[int, _Block], None]:
        buffer = staging_buffer(BLOCK_BYTES, devices)

        def write(number: int, block: _Block) -> None:
            content = _content(block.elements, buffer)
            crc32 = bytes_crc32(content)
            with gate.turn(0, number):
                write_fully_at(descriptor, content, block.offset)
                block.record.crc32 = combine_crc32(block.record.crc32, crc32, len(content))

        return write

    # Two threads suffice for one to copy while the other one writes.
    threads = max(2, min(available_cores(), _MAX_THREADS)) if contents else 0
    run_in_order(_blocks(contents, start), make_worker, threads=threads, stages=1)


def _content(elements: torch.Tensor, buffer: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor in the order of its elements: its own memory, or a copy in `buffer`."""
    is_pending = elements.is_neg() or elements.is_conj()
    if elements.device.type != "cpu" or not elements.is_contiguous() or is_pending:
        size = elements.numel() * elements.element_size()
        elements = buffer[:size].view(elements.dtype).view(elements.shape).copy_(elements)
    content: memoryview = flattened(elements).view(torch.uint8).numpy().data
    return content
