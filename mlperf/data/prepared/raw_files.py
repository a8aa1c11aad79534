"""Names of the raw text: one file or one per day, each plain or gzipped."""

from __future__ import annotations

import os
from pathlib import Path

from mlperf.benchmarks.data_sets import DATA_SETS
from mlperf.data.criteo.days import TERABYTE_DAYS
from mlperf.util.errors import UsageError
from mlperf.util.strict_json import SchemaError, file_name


def raw_files(raw_data_file: Path, data_set: str) -> list[Path]:
    """Return the paths of the raw text; each file may exist with the ending .gz instead.

    UsageError if `raw_data_file` is a folder, or if the manifest could not contain its name.
    """
    try:
        file_name(raw_data_file.name, "its name")
    except SchemaError as error:
        raise UsageError(f"--raw-data-file={str(raw_data_file)!r}: {error}") from None
    if not DATA_SETS[data_set].has_days:
        if os.path.isdir(raw_data_file):
            raise _folder(raw_data_file, "the text file", "train.txt")
        return [raw_data_file]
    days = [raw_data_file.with_name(f"{raw_data_file.name}_{day}") for day in range(TERABYTE_DAYS)]
    # The prefix may also be the name of a folder.
    if os.path.isdir(raw_data_file) and existing_text(days[0]) is None:
        raise _folder(raw_data_file, "the prefix of day_0 ... day_23", "day")
    return days


def gzipped(path: Path) -> Path:
    """Return the name of the gzipped form of a text file."""
    return path.with_name(f"{path.name}.gz")


def text_name(name: str) -> str:
    """Return the name of a text file without the ending of its gzipped form."""
    return name.removesuffix(".gz")


def existing_text(path: Path) -> Path | None:
    """Return the file or its gzipped form; None if there is neither."""
    return next((each for each in (path, gzipped(path)) if os.path.isfile(each)), None)


def _folder(raw_data_file: Path, expected: str, name: str) -> UsageError:
    return UsageError(
        f"--raw-data-file={raw_data_file} is a folder; must be {expected}: write {raw_data_file / name}"
    )
