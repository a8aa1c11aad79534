"""Names of the files that the DLRM-DCNv2 reference prepares."""

from __future__ import annotations

import os
from pathlib import Path

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.prepared.paths import AFTER_PREFIX, REFERENCE_ENDINGS, DatasetPaths
from mlperf.util.errors import RunError

DAY = "day"


def reference_prefix(path: Path) -> Path | None:
    """Return the prefix FOLDER/day of the files that FOLDER or FOLDER/day names.

    None if there are none, or if there is other prepared data of the name. RunError if FOLDER cannot be read.
    """
    if DatasetPaths(path).any_exists():
        return None
    for prefix in (path / DAY, path):
        try:
            names = os.listdir(prefix.parent)
        except PermissionError as error:
            if prefix.parent == path:
                raise RunError(f"{path}: cannot be read: {error.strerror}") from None
            continue
        except OSError:
            continue
        if any(
            name.startswith(prefix.name) and AFTER_PREFIX.fullmatch(name[len(prefix.name) :]) for name in names
        ):
            return prefix
    return None


def reference_names(prefix: Path) -> list[Path]:
    """Return the files of all days, those that do not exist included."""
    return [path for day in range(TERABYTE_DAYS) for path in day_files(prefix, day)]


def day_files(prefix: Path, day: int) -> list[Path]:
    """Return the files of a day, those that do not exist included."""
    return [day_file(prefix, day, ending) for ending in REFERENCE_ENDINGS]


def day_file(prefix: Path, day: int, ending: str) -> Path:
    """Return the file of a day with an ending, such as dense.npy."""
    return prefix.with_name(f"{prefix.name}_{day}_{ending}")
