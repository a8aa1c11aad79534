"""Checks of the files that a preparation writes, before it opens, creates or replaces any of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mlperf.data.prepared.named_files import named_prepared_files, named_raw_files, named_work_files
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.util.errors import UsageError
from mlperf.util.output_files import NamedFile, require_distinct, require_writable_file, require_writable_folder

_FLAG = "--processed-data-file"


def require_other_names(paths: DatasetPaths, raw_data_file: Path, others: Sequence[NamedFile] = ()) -> None:
    """Raise UsageError if a file of the prepared data, or of its preparation, is raw data or another input.

    others: these inputs.
    """
    origin = f"{_FLAG}={paths.prefix}"
    outputs = [*named_prepared_files(paths, origin), *named_work_files(paths, origin)]
    inputs = [*named_raw_files(raw_data_file), *others]
    for output in outputs:  # not with each other: links among the splits of another program are left as they are
        require_distinct(inputs, [output])


def require_writable_files(paths: DatasetPaths, *, archive: bool) -> None:
    """Raise UsageError if a file of the prepared data cannot be written, or is a link, device or folder.

    archive: whether X.npz is written.
    """
    require_writable_folder(_FLAG, paths.prefix.parent, named_by=paths.prefix)
    if not paths.prefix.parent.is_dir():  # it is created
        return
    for file in named_prepared_files(paths, f"{_FLAG}={paths.prefix}"):
        if archive or file.path != paths.archive:
            require_writable_file(_FLAG, file.path, shown=file.name)


def require_new_folder(folder: Path) -> None:
    """Raise UsageError unless `folder` does not exist or is empty, so that another one can be renamed to it."""
    require_writable_folder(_FLAG, folder.parent, named_by=folder)
    if folder.is_symlink():
        raise UsageError(f"{_FLAG}={folder} is a link; links are not replaced: name the folder itself")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{_FLAG}={folder} is a file; with --reference-files it must be a new or empty folder")
    if os.path.ismount(folder):
        raise UsageError(f"{_FLAG}={folder} is a mount point, which cannot be replaced; name a folder in it")
    if found := next(iter(folder.iterdir()), None):
        raise UsageError(f"{_FLAG}={folder} contains {found.name}; with --reference-files it must be new or empty")
