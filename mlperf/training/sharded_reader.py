"""Read sharded checkpoints, by any number of processes, directly into their tensors.

Nothing but `checkpoint.json` and the elements of the shards is read. `.metadata`, for other programs, is a pickle,
which could execute code.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.checkpoint.planner import LoadPlanner as AnyLoadPlanner
from torch.futures import Future

from mlperf.distributed.processes import current
from mlperf.training.checkpoint_archive import Record
from mlperf.training.checkpoint_failures import reading
from mlperf.training.checkpoint_records import Records
from mlperf.training.sharded_index import INDEX_NAME, Index, StoredShard, TensorIndex, decoded, read_index
from mlperf.training.sharded_planners import LoadPlanner, narrowed
from mlperf.training.sharded_writer import failure_of_any, one_process_is_meant
from mlperf.training.stored_tensor import StoredTensor
from mlperf.util.errors import RunError
from mlperf.util.files import open_regular
from mlperf.util.strict_json import SchemaError

Pairs = Iterable[tuple[torch.Tensor, torch.Tensor]]


@contextmanager
def opened_shards(folder: Path) -> Iterator[Shards]:
    """Open all files of a sharded checkpoint. RunError, in one line, if one is missing, damaged or unreadable."""
    with reading(folder / INDEX_NAME):
        try:
            index = read_index(folder)
        except FileNotFoundError:
            saved = sorted(folder.glob("*.pt"))  # as in the folder of a run
            hint = f"; {saved[0]} is a file" if saved else ""
            raise RunError(
                f"{folder}: the checkpoint cannot be read: Is a directory without {INDEX_NAME}{hint}"
            ) from None
        except SchemaError as error:
            raise RunError(f"{folder / INDEX_NAME}: damaged: {error}") from None
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_opened(folder / name, size, _shards_in(index, name)))
            for name, size in index.files.items()
        }
        yield Shards(folder, index, files)


def _shards_in(index: Index, file: str) -> list[tuple[str, TensorIndex, StoredShard]]:
    return [
        (name, tensor, shard)
        for name, tensor in index.tensors.items()
        for shard in tensor.shards
        if shard.file == file
    ]


@contextmanager
def _opened(path: Path, size: int, shards: list[tuple[str, TensorIndex, StoredShard]]) -> Iterator[_ShardFile]:
    with reading(path), open_regular(path) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise RunError(f"{path}: damaged: has {found:,} bytes, must have {size:,}")
        yield _ShardFile(path, file.fileno(), size, shards)


class _ShardFile:
    """An open file of shards. Its elements are verified when they are read for the first time."""

    def __init__(
        self, path: Path, descriptor: int, size: int, shards: list[tuple[str, TensorIndex, StoredShard]]
    ) -> None:
        self.path = path
        self._mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY) if size else None
        base = 0 if self._mapped is None else np.frombuffer(self._mapped, np.uint8).ctypes.data
        self._of_shard = {
            (name, shard.offsets): Record(
                f"{name}{list(shard.offsets)}", shard.position, tensor.nbytes(shard), shard.crc32
            )
            for name, tensor, shard in shards
        }
        self._records = Records(descriptor, self._of_shard.values(), base)

    def elements(self, dtype: torch.dtype, shard: StoredShard) -> torch.Tensor:
        """Return the elements of a shard, a view of the mapped file, which `fill` verifies."""
        count = prod(shard.sizes)
        if count == 0 or self._mapped is None:
            return torch.empty(shard.sizes, dtype=dtype)
        view = torch.frombuffer(self._mapped, dtype=dtype, count=count, offset=shard.position)
        return view.view(shard.sizes)

    def fill(self, pairs: Pairs) -> None:
        """Copy the second tensor of each pair, a view of `elements`, to the first, and verify its shard."""
        with reading(self.path, "damaged"):
            self._records.fill(pairs)

    def verify(self, shards: Iterable[tuple[str, StoredShard]]) -> None:
        """Verify shards, by the name of their tensor, that were not verified yet."""
        with reading(self.path, "damaged"):
            self._records.verify([self._of_shard[name, shard.offsets] for name, shard in shards])


class Shards:
    """An open sharded checkpoint.

    contents: its entries. Tensors are StoredTensors, except numbers.
    """

    def __init__(self, folder: Path, index: Index, files: dict[str, _ShardFile]) -> None:
        self._folder, self._index, self._files = folder, index, files
        self._filled: set[str] = set()
        self._reader = _Reader(index, files)
        try:
            self.contents = decoded(index.contents, self._tensor)
        except SchemaError as error:
            raise RunError(f"{folder / INDEX_NAME}: damaged: {error}") from None

    def _tensor(self, name: str) -> torch.Tensor:
        tensor = self._index.tensors.get(name)
        if tensor is None:
            raise SchemaError(f"the entry {name[:80]!a} is not among its tensors")
        if tensor.shape:
            return StoredTensor(name, tensor.shape, tensor.dtype, lambda target: self._copy(name, tensor, target))
        number = torch.empty((), dtype=tensor.dtype)
        self._copy(name, tensor, number)
        return number

    def _copy(self, name: str, tensor: TensorIndex, target: torch.Tensor) -> None:
        """Copy a whole tensor in this process alone."""
        for shard in tensor.shards:
            file = self._files[shard.file]
            file.fill([(narrowed(target, shard.offsets, shard.sizes), file.elements(tensor.dtype, shard))])

    def fill(self, pairs: Pairs) -> None:
        """Copy the second tensor of each pair, from `contents`, to the first, of the same shape, and verify it.

        All processes must call it with the same tensors of `contents`; of divided tensors each fills its parts.
        RunError, in all processes, if a tensor is damaged or cannot be read in one.
        """
        targets: dict[str, torch.Tensor] = {}
        for target, source in pairs:
            if isinstance(source, StoredTensor):
                targets[source.label] = target
            else:
                target.copy_(source)
        if not targets:
            return
        with failure_of_any(), one_process_is_meant():
            dcp.load(targets, storage_reader=self._reader, planner=LoadPlanner())
        self._filled |= targets.keys()

    def verify(self) -> None:
        """Verify what no process has verified yet: each process a part of the other shards."""
        unread = [
            (name, shard)
            for name, tensor in self._index.tensors.items()
            if name not in self._filled
            for shard in tensor.shards
        ]
        own = unread[current().rank :: current().size]
        for name, file in self._files.items():
            file.verify((tensor, shard) for tensor, shard in own if shard.file == name)


class _Reader(dcp.StorageReader):
    """Reads shards for torch.distributed.checkpoint."""

    def __init__(self, index: Index, files: dict[str, _ShardFile]) -> None:
        super().__init__()
        self._files = files
        self._shards = {
            MetadataIndex(name, shard.offsets): (tensor.dtype, shard)
            for name, tensor in index.tensors.items()
            for shard in tensor.shards
        }
        self._described = {
            name: TensorStorageMetadata(
                TensorProperties(dtype=tensor.dtype),
                torch.Size(tensor.shape),
                [ChunkStorageMetadata(torch.Size(each.offsets), torch.Size(each.sizes)) for each in tensor.shards],
            )
            for name, tensor in index.tensors.items()
        }

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: an object reads one checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return True: the checkpoint is already open."""
        return True

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return shapes and shards of all tensors."""
        return Metadata(dict(self._described))

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the files are open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans."""
        return plans

    def read_data(self, plan: LoadPlan, planner: AnyLoadPlanner) -> Future[None]:
        """Read the shards of a plan, each file as a whole, into the tensors of the planner."""
        pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for item in plan.items:
            dtype, shard = self._shards[item.storage_index]
            elements = self._files[shard.file].elements(dtype, shard)
            source = narrowed(elements, item.storage_offsets, item.lengths)
            pairs.setdefault(shard.file, []).append((planner.resolve_tensor(item), source))
        for name, found in pairs.items():
            self._files[name].fill(found)
        done: Future[None] = Future()
        done.set_result(None)
        return done
