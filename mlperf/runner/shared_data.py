"""The data of a run of several processes: which of them read the same copy, and whether all copies are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mlperf.benchmarks import dashed
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.watched_file import FileStatus
from mlperf.distributed.agreement import require_all_equal
from mlperf.training.checkpoint_data import recorded_data


def require_equal_data(prepared: PreparedData) -> None:
    """Raise the same UsageError on all processes if their data differs: its sizes, checksums or manifests.

    Data without a manifest has no checksums: sizes and rows per table are compared. Every process must call it.
    """
    recorded = {
        "rows of the splits": dashed((prepared.train_rows, prepared.test_rows, prepared.val_rows)),
        "rows per table": dashed(prepared.counts) or "unknown",
        "--data-set": str(prepared.data_set),
        "--max-ind-range": str(prepared.max_ind_range),
        "smallest integer": str(prepared.smallest_integer),
        **{what: value.partition(" ")[0] for what, value in recorded_data(prepared).items()},  # without names
    }
    facts = {f"{prepared.train}: {what}": value for what, value in recorded.items()}
    for name, status in _statuses(prepared).items():
        facts[f"{_path(prepared, name)}: size in bytes"] = str(status.size)
    for name, checksum in prepared.checksums.items():
        facts[f"{_path(prepared, name)}: checksum"] = f"{checksum:08x}"
    require_all_equal(facts)


def same_copy(prepared: PreparedData) -> PreparedData | None:
    """Return the data that another process has opened if this one reads the same files, otherwise None.

    Its files need not be compared with their manifest again, which takes long if their times have changed.
    """
    statuses = _statuses(prepared)
    try:
        own = {name: FileStatus.of(_path(prepared, name)) for name in statuses}
    except OSError:
        return None
    if copy_of(own.values()) != copy_of(statuses.values()):
        return None
    if prepared.reference is None:
        return replace(prepared, statuses=own)
    return replace(prepared, reference=replace(prepared.reference, statuses=own))


def copy_of_splits(prepared: PreparedData, splits: Sequence[str]) -> str:
    """Return a text that is equal in two processes if they read the same files of some splits.

    On a shared file system, the files have the same inode and times on all nodes, but not the same device.
    """
    statuses, reference = _statuses(prepared), prepared.reference
    names = splits if reference is None else [path.name for split in splits for path in reference.paths(split)]
    return copy_of(statuses[name] for name in names if name in statuses)


def copy_of(statuses: Iterable[FileStatus]) -> str:
    """Return a text that is equal in two processes if they read the same files, whose statuses are given."""
    facts = [(each.file[1], each.size, each.modified_ns, each.changed_ns) for each in statuses]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _statuses(prepared: PreparedData) -> dict[str, FileStatus]:
    """Return the status of each file by split or, for files of the reference, by name."""
    return dict(prepared.statuses if prepared.reference is None else prepared.reference.statuses)


def _path(prepared: PreparedData, name: str) -> Path:
    return prepared.split(name) if prepared.reference is None else prepared.train / name
