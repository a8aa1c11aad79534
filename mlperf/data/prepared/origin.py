"""Compare raw text with the input files from which a data set was prepared."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.raw_files import existing_text, raw_files, text_name


@dataclass(frozen=True)
class Difference:
    """How raw text differs from the input files of a data set.

    text: one line that names the files. other_data: whether it is other data; if False, files may only have been
    touched, copied, renamed or extended since. has_changed: whether files of the same names have other sizes or
    times.
    """

    text: str
    other_data: bool
    has_changed: bool = False


def compare_raw_data(prepared: PreparedData, raw_data_file: Path) -> Difference | None:
    """Compare the names, sizes and modification times of the raw text with those of the inputs; None if equal.

    Files that no longer exist, and those that were compressed or decompressed since, are not compared. Nothing is
    known of the inputs of data that another tool prepared.
    """
    if prepared.data_set is None or not prepared.inputs:
        return None
    paths = raw_files_of(prepared, raw_data_file)
    if [text_name(path.name) for path in paths] != [text_name(facts.name) for facts in prepared.inputs]:
        return _other_names(prepared, raw_data_file, paths)
    unchanged: list[Path] = []
    changed: list[tuple[Path, int, int]] = []  # with the size found and the recorded one
    for path, facts in zip(paths, prepared.inputs, strict=True):
        recorded = path.with_name(facts.name)
        # os.path.isfile: Path.is_file would raise an error for a folder that may not be read.
        if os.path.isfile(recorded):
            found = FileFacts.of(recorded)
            if found == facts:
                unchanged.append(recorded)
            else:
                changed.append((recorded, found.size, facts.size))
    if not changed:
        return None
    if not unchanged and all(size != recorded_size for _, size, recorded_size in changed):
        path, size, recorded_size = changed[0]
        return Difference(
            f"{path} has {size} bytes, but {prepared.train} was prepared from one of {recorded_size} bytes",
            other_data=True,
        )
    path, size, recorded_size = max(changed, key=lambda entry: entry[1] != entry[2])
    if size == recorded_size:  # as after copying
        text = f"{path}: has another modification time than when {prepared.train} was prepared, and the same size"
    else:
        text = f"{path}: has changed since {prepared.train} was prepared"
    return Difference(text, other_data=False, has_changed=True)


def raw_files_of(prepared: PreparedData, raw_data_file: Path) -> list[Path]:
    """Return the paths of the raw text from which a data set of this program was prepared; see `raw_files`."""
    assert prepared.data_set is not None
    return raw_files(raw_data_file, prepared.data_set, prepared.columns, prepared.days or range(TERABYTE_DAYS))


def _other_names(prepared: PreparedData, raw_data_file: Path, paths: list[Path]) -> Difference:
    first, last = prepared.inputs[0].name, prepared.inputs[-1].name
    inputs = first if first == last else f"{first} ... {last}"
    found = [existing_text(path) for path in paths]
    if len(prepared.inputs) > 1 and raw_data_file.name in [facts.name for facts in prepared.inputs]:
        prefix = re.sub(r"_\d+(\.gz)?$", "", raw_data_file.name)
        return Difference(
            f"must be the prefix {raw_data_file.with_name(prefix)} of {inputs}, not one of them", other_data=True
        )
    day = raw_data_file.with_name(f"{raw_data_file.name}_0")  # also for data prepared from the Kaggle file
    here = next(
        (path for path in [*found, existing_text(raw_data_file), existing_text(day)] if path is not None), None
    )
    if here is None:
        return Difference(
            f"{raw_data_file}: no such file; {prepared.train} was prepared from {inputs}",
            other_data=False,
        )
    facts = [None if path is None else (path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    if facts == [(known.size, known.mtime_ns) for known in prepared.inputs]:
        return Difference(
            f"{here}: {prepared.train} was prepared from {inputs}, of the same size and time", other_data=False
        )
    return Difference(f"{here} exists, but {prepared.train} was prepared from {inputs}", other_data=True)
