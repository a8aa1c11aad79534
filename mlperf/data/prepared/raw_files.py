"""Names of the raw text: one file, one per day, or those that a description names; each plain or gzipped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mlperf.benchmarks.data_sets import DATA_SETS, TERABYTE_DAYS
from mlperf.data.columns.description import ColumnsDescription, SplitByFile
from mlperf.util.errors import UsageError
from mlperf.util.strict_json import SchemaError, file_name


def raw_files(
    raw_data_file: Path,
    data_set: str,
    columns: ColumnsDescription | None = None,
    day_numbers: Sequence[int] = range(TERABYTE_DAYS),
) -> list[Path]:
    """Return the paths of the raw text; each file may exist with the ending .gz instead.

    columns: description of the columns, which may name the files of each split; these are in the order of SPLITS.
    day_numbers: days of a data set that has files for them.
    UsageError if `raw_data_file` is a folder, or if the manifest could not contain its name.
    """
    try:
        file_name(raw_data_file.name, "its name")
    except SchemaError as error:
        raise UsageError(f"--raw-data-file={str(raw_data_file)!r}: {error}") from None
    if columns is not None and isinstance(columns.split, SplitByFile):
        return _files_of_splits(raw_data_file, columns.split)
    if not DATA_SETS[data_set].has_days:
        if os.path.isdir(raw_data_file):
            raise _folder(raw_data_file, "the text file", "train.txt")
        return [raw_data_file]
    days = [raw_data_file.with_name(f"{raw_data_file.name}_{day}") for day in day_numbers]
    # The prefix may also be the name of a folder.
    if os.path.isdir(raw_data_file) and existing_text(days[0]) is None:
        raise _folder(raw_data_file, "the prefix of day_0 ... day_23", "day")
    return days


def _files_of_splits(raw_data_file: Path, split: SplitByFile) -> list[Path]:
    names = [*split.train, *split.test, *split.validation]
    if os.path.isdir(raw_data_file):
        return [raw_data_file / name for name in names]
    if raw_data_file.name not in names:
        raise UsageError(
            f"--raw-data-file={raw_data_file} is none of the files of the splits that --columns names; must be "
            f"their folder or one of them, such as {raw_data_file.with_name(names[0])}"
        )
    return [raw_data_file.with_name(name) for name in names]


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
