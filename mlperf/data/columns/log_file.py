"""Open a file of a click log."""

from __future__ import annotations

from pathlib import Path

from mlperf.data.columns.description import ColumnsDescription
from mlperf.data.columns.parquet import open_parquet
from mlperf.data.columns.source import LogFile
from mlperf.data.columns.text_log import open_text_log


def open_log(path: Path, description: ColumnsDescription, *, label_optional: bool = False) -> LogFile:
    """Return the file, by the ending of its name: .parquet, otherwise text, which may be compressed (.gz, .zst).

    label_optional: whether the column of the label may be missing.

    RunError if the file cannot be read, or lacks a column. UsageError if a package is not installed.
    """
    opened = open_parquet if path.suffix == ".parquet" else open_text_log
    return opened(path, description, label_optional=label_optional)
