"""Sharded checkpoints: a folder that torch.distributed.checkpoint writes, with a file of each process.

The format is that of `torch.distributed.checkpoint.FileSystemWriter`: each shard is an archive of `torch.save` in
a file `__RANK_0.distcp`, and `.metadata` says where it is. Here, the shards are written block by block from any
device, and `checkpoint.json` (mlperf/training/sharded_index.py) has the other entries of the checkpoint, and the
places and CRC-32s of the elements.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import (
    _StorageInfo,  # what FileSystemReader expects; there is no public name
)
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.planner import SavePlanner as AnySavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from mlperf.distributed.agreement import decided_by_first
from mlperf.distributed.processes import current
from mlperf.training.checkpoint_failures import writing
from mlperf.training.checkpoint_writer import write_archive
from mlperf.training.sharded_index import INDEX_NAME, Index, StoredShard, TensorIndex, encoded, index_bytes
from mlperf.training.sharded_planners import MAX_SHARD_BYTES, SavePlanner
from mlperf.util.errors import RunError
from mlperf.util.files import write_atomically
from mlperf.util.folders import replace_folder
from mlperf.util.temporary import new_temporary_folder

_ALIGNMENT = 64  # of an archive in its file; that of the elements in an archive


def write_sharded(
    path: Path,
    contents: Mapping[str, Any],
    *,
    shard_bytes: int = MAX_SHARD_BYTES,
    report: Callable[[str, int], None] = lambda name, size: None,
) -> None:
    """Write `contents` to the folder `path`, which replaces an older one when it is complete and on disk.

    All processes must call it, with their parts of divided tensors. shard_bytes: largest size of a shard of
    several rows. report: called with name and bytes of each shard that this process has written. RunError, in all
    processes, if one of them fails; an older folder is left as it is then.
    """
    tensors: dict[str, torch.Tensor] = {}
    entries = encoded(contents, "", tensors)
    with writing(path), ExitStack() as stack:
        folder = decided_by_first(lambda: _created(stack, path))
        writer = _Writer(folder, path, entries, report)
        with failure_of_any(), one_process_is_meant():
            dcp.save(tensors, storage_writer=writer, planner=SavePlanner(shard_bytes))


def _created(stack: ExitStack, path: Path) -> Path:
    """Return a new folder beside `path`, which is removed at the end of `stack` unless it was renamed."""
    with writing(path):
        return stack.enter_context(new_temporary_folder(path))


@contextmanager
def failure_of_any() -> Iterator[None]:
    """Raise in each process what went wrong in one of them, in place of torch.distributed.checkpoint's error."""
    try:
        yield
    except CheckpointException as error:
        causes = {rank: cause for rank, (cause, _) in error.failures.items()}
        own = causes.get(current().rank)
        if own is not None and not isinstance(own, Exception):
            raise own from None  # a signal
        failed = [cause for _, cause in sorted(causes.items()) if isinstance(cause, Exception)]
        raise failed[0] if failed else RunError("another process was stopped") from None


@contextmanager
def one_process_is_meant() -> Iterator[None]:
    """Silence the warning of torch.distributed.checkpoint that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


@dataclass(frozen=True)
class _Written(WriteResult):
    """A shard in a file: the place of its elements, beside that of its archive."""

    shard: StoredShard


class _Writer(dcp.FileSystemWriter):
    """Writes one file of shards in each process, and the index in the first."""

    def __init__(self, folder: Path, target: Path, entries: Any, report: Callable[[str, int], None]) -> None:
        super().__init__(folder, sync_files=True)
        self._folder, self._target, self._entries, self._report = folder, target, entries, report

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Name the file of each process."""
        return [replace(plan, storage_data=f"__{rank}_0.distcp") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: AnySavePlanner) -> Future[list[WriteResult]]:
        """Write the shards of this process."""
        results: list[WriteResult] = []
        if plan.items:
            with (self._folder / plan.storage_data).open("w+b") as file:
                self._write(file.fileno(), plan, planner, results)
                os.fsync(file.fileno())
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write(self, descriptor: int, plan: SavePlan, planner: AnySavePlanner, results: list[WriteResult]) -> None:
        start = 0
        for item in plan.items:
            elements = planner.resolve_data(item)
            assert isinstance(elements, torch.Tensor)
            written = write_archive(descriptor, elements.detach(), start=start)
            (record,) = written.tensors
            place = _StorageInfo(plan.storage_data, start, written.end - start)
            shard = StoredShard(
                tuple(item.index.offset or ()),
                tuple(elements.shape),
                plan.storage_data,
                start + record.offset,
                record.crc32,
            )
            results.append(_Written(item.index, elements.nbytes, place, shard))
            self._report(item.index.fqn, elements.nbytes)
            start = -(-written.end // _ALIGNMENT) * _ALIGNMENT

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write `.metadata` and the index, when all processes have written, and rename the folder."""
        super().finish(metadata, results)
        written = [one for some in results for one in some if isinstance(one, _Written)]
        write_atomically(self._folder / INDEX_NAME, index_bytes(self._index(metadata, written)))
        replace_folder(self._folder, self._target)

    def _index(self, metadata: Metadata, written: Sequence[_Written]) -> Index:
        shards: dict[str, list[StoredShard]] = {}
        for one in written:
            shards.setdefault(one.index.fqn, []).append(one.shard)
        tensors = {}
        for name, described in metadata.state_dict_metadata.items():
            assert isinstance(described, TensorStorageMetadata)
            dtype = described.properties.dtype
            tensors[name] = TensorIndex(tuple(described.size), dtype, tuple(shards[name]))
        sizes: dict[str, int] = {}
        for one in written:  # each file in its order
            sizes[one.shard.file] = one.storage_data.offset + one.storage_data.length
        return Index(self._entries, tensors, sizes)

    def storage_meta(self) -> StorageMeta | None:
        """Return nothing: a path that was temporary, and a random number."""
        return None
