"""Which elements of a checkpoint each process writes and reads, for torch.distributed.checkpoint.

Its default planners know tensors and the sharded tensors of PyTorch. These know DividedTensor and StoredTensor,
and write large tensors in parts, so that a process that needs a few rows reads little more than these.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from mlperf.training.stored_tensor import StoredTensor
from mlperf.util.divided_tensor import DividedTensor, Part, parts_here

MAX_SHARD_BYTES = 64 << 20


class SavePlanner(DefaultSavePlanner):
    """Plans what this process writes of a dictionary of tensors: its parts, in shards of `shard_bytes` at most.

    What several processes have is written by one of them, which torch.distributed.checkpoint chooses.
    """

    def __init__(self, shard_bytes: int = MAX_SHARD_BYTES) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._shard_bytes = shard_bytes
        self._read: tuple[str, torch.Tensor] | None = None

    def create_local_plan(self) -> SavePlan:
        """Return the shards of this process."""
        self.plan = SavePlan([item for name, one in self.state_dict.items() for item in self._items(name, one)])
        return self.plan

    def _items(self, name: str, tensor: torch.Tensor) -> Iterator[WriteItem]:
        properties = TensorProperties(dtype=tensor.dtype)
        for part in _parts_of(tensor):
            if 0 in part[1] and tensor.numel():  # it begins where another part does
                continue
            for offsets, sizes in _row_shards(part, tensor.element_size(), self._shard_bytes):
                chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
                data = TensorWriteData(chunk, properties, torch.Size(tensor.shape))
                yield WriteItem(MetadataIndex(name, offsets), WriteItemType.SHARD, tensor_data=data)

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        """Return the elements of a shard."""
        name = write_item.index.fqn
        tensor = self.state_dict[name]
        assert write_item.tensor_data is not None
        chunk = write_item.tensor_data.chunk
        if isinstance(tensor, StoredTensor):
            if self._read is None or self._read[0] != name:
                self._read = None  # gives up its memory first
                self._read = name, tensor.read()
            tensor = self._read[1]
        for part in parts_here(tensor):
            if _contains(part, chunk):
                return _section(part, chunk.offsets, chunk.sizes)
        raise AssertionError(f"{name} has no part at {list(chunk.offsets)}")


class LoadPlanner(DefaultLoadPlanner):
    """Plans what this process reads of a dictionary of tensors: the parts it has, which are filled in place."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> LoadPlan:
        """Return what is to be read, by the shards in which it was saved."""
        assert self.metadata is not None
        requests: list[ReadItem] = []
        for name, tensor in self.state_dict.items():
            saved = self.metadata.state_dict_metadata[name]
            assert isinstance(saved, TensorStorageMetadata)
            chunks = [
                ChunkStorageMetadata(torch.Size(part.offsets), part.values.shape) for part in parts_here(tensor)
            ]
            requests += create_read_items_for_chunk_list(name, saved, chunks)
        return LoadPlan(requests)

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        """Return the elements that are to be filled."""
        index = read_item.dest_index
        part = next(part for part in parts_here(self.state_dict[index.fqn]) if part.offsets == index.offset)
        return narrowed(part.values, read_item.dest_offsets, read_item.lengths)


def narrowed(tensor: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Return a view of `sizes` elements from `offsets` on, by dimension."""
    for dimension, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        tensor = tensor.narrow(dimension, offset, size)
    return tensor


def _parts_of(tensor: torch.Tensor) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return offsets and sizes of the parts that this process has."""
    if isinstance(tensor, DividedTensor):
        return [(part.offsets, tuple(part.values.shape)) for part in tensor.parts]
    return [((0,) * tensor.dim(), tuple(tensor.shape))]


def _row_shards(
    part: tuple[tuple[int, ...], tuple[int, ...]], element_size: int, shard_bytes: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield offsets and sizes of the shards of a part: rows that together have `shard_bytes` at most."""
    offsets, sizes = part
    if not sizes or sizes[0] == 0:
        yield offsets, sizes
        return
    rows = max(1, shard_bytes // max(1, element_size * prod(sizes[1:])))
    for first in range(0, sizes[0], rows):
        yield (offsets[0] + first, *offsets[1:]), (min(rows, sizes[0] - first), *sizes[1:])


def _contains(part: Part, chunk: ChunkStorageMetadata) -> bool:
    return all(
        start <= offset and offset + size <= start + length
        for start, length, offset, size in zip(
            part.offsets, part.values.shape, chunk.offsets, chunk.sizes, strict=True
        )
    )


def _section(part: Part, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    return narrowed(part.values, [a - b for a, b in zip(offsets, part.offsets, strict=True)], sizes)
