"""The plan of a preparation: its input files, their days, and the disk space it needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlperf.benchmarks.data_sets import KAGGLE_DAYS
from mlperf.data.columns.description import ColumnsDescription, SplitByFile, SplitByValue
from mlperf.data.criteo.days import SPLITS, divide
from mlperf.data.prepare.division import ByFile, ByHash, ByPosition, ByValue, Division, rows_by_share
from mlperf.data.prepare.layout import Layout
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.text_format import TextFormat
from mlperf.data.prepared.raw_files import existing_text
from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import DAYS, PreparationSettings
from mlperf.util.errors import RunError

MAX_ID_BYTES = 8 * 10**9  # estimated size of saved ids at most


def find_inputs(request: Request) -> list[Path]:
    """Return the raw text files, each plain or gzipped.

    RunError if one is missing or empty, UsageError if their name is that of a folder.
    """
    names = request.raw_files()
    paths = []
    for name in names:
        path = existing_text(name) or name
        if not path.is_file():
            raise RunError(f"{path}: no such file, also not as .gz; {_required(request, names)}")
        if path.stat().st_size == 0:
            expected = f"rows of {CRITEO.columns} columns separated by tabs" if request.columns is None else "rows"
            raise RunError(f"{path}: empty file; expected {expected}")
        paths.append(path)
    return paths


def _required(request: Request, names: Sequence[Path]) -> str:
    """Return which files are required, and what else may have been meant."""
    settings, raw = request.settings, request.settings.raw_data_file
    required = f"--raw-data-file={raw} requires"
    if not settings.traits.has_days:
        if len(names) > 1:
            return f"{required} the files that --columns={settings.columns} names"
        is_prefix = raw.with_name(f"{raw.name}_0").is_file()
        advice = f"; for {raw.name}_0 ... pass --data-set=terabyte or terabyte_dcnv2" if is_prefix else ""
        return f"{required} this file{advice}"
    existing = [day for day, name in zip(settings.day_numbers, names, strict=True) if existing_text(name)]
    advice = f"; --days={DAYS.show(tuple(existing))} prepares those that exist" if existing else ""
    if raw.is_file():
        advice = f", of which {raw} is not the prefix but a file"
    which = f"{len(names)} days" if len(names) > 1 else "this day"
    return f"{required} {which}{advice}"


@dataclass(frozen=True)
class Plan:
    """The input files, with sizes estimated before they are read.

    text_bytes: size of each input file, unzipped.
    row_bytes: size of the rows of each part, a day or split, in the binary file, estimated from the first lines of
        each input file.
    division: divides the rows into these parts.
    total_row_bytes: estimated size of all rows, which may be in any part if a column decides.
    """

    inputs: tuple[Path, ...]
    text_bytes: tuple[int, ...]
    row_bytes: tuple[int, ...]
    division: Division
    total_row_bytes: int


def make_plan(request: Request, inputs: Sequence[Path], text: TextFormat) -> Plan:
    """Read the beginning of each input file; count the rows of a single one to divide them into days."""
    settings = request.settings
    sizes = [text.size(file) for file in range(len(inputs))]
    text_bytes = tuple(size for size, _ in sizes)
    row_bytes = [size for _, size in sizes]
    if request.columns is not None:
        row_bytes_of_splits, division = _plan_splits(request, request.columns, inputs, row_bytes, text)
        return Plan(tuple(inputs), text_bytes, row_bytes_of_splits, division, sum(row_bytes))
    if len(inputs) > 1:
        days = ByFile(tuple(range(len(inputs))))
        return Plan(tuple(inputs), text_bytes, tuple(row_bytes), days, sum(row_bytes))
    good_rows, bad_rows = _count_rows(text, settings)
    rows_per_day = divide(good_rows, KAGGLE_DAYS)
    if min(rows_per_day) == 0:
        left_out = f" besides {bad_rows} bad rows, which --bad-rows=skip leaves out" if bad_rows else ""
        raise RunError(
            f"{inputs[0]}: fewer than {KAGGLE_DAYS} rows{left_out}; each of the {KAGGLE_DAYS} days needs at least "
            "one"
        )
    division = ByPosition(tuple(int(end) for end in np.cumsum(rows_per_day)))
    row_bytes_per_day = (row_bytes[0] // KAGGLE_DAYS,) * KAGGLE_DAYS
    return Plan(tuple(inputs), text_bytes, row_bytes_per_day, division, sum(row_bytes_per_day))


def _plan_splits(
    request: Request, columns: ColumnsDescription, inputs: Sequence[Path], row_bytes: list[int], text: TextFormat
) -> tuple[tuple[int, ...], Division]:
    """Return the estimated size of each split and how the rows are divided."""
    split, total = columns.split, sum(row_bytes)
    if isinstance(split, SplitByFile):
        counts = [len(names) for names in (split.train, split.test, split.validation)]
        part_of_file = np.repeat(range(len(SPLITS)), counts)
        sizes = np.bincount(part_of_file, row_bytes, minlength=len(SPLITS))
        return tuple(map(int, sizes)), ByFile(tuple(part_of_file.tolist()))
    if isinstance(split, SplitByValue):
        return (total,) * len(SPLITS), ByValue()  # each split may have all rows
    assert split is not None
    shares = (1 - split.test - split.validation, split.test, split.validation)
    estimates = tuple(int(total * share) for share in shares)
    if split.is_random:
        return estimates, ByHash(request.settings.seed, split.test, split.validation)
    rows, bad_rows = _count_rows(text, request.settings)
    rows_per_split = rows_by_share(rows, split.test, split.validation)
    if min(rows_per_split[:2]) < 1:
        left_out = f" besides {bad_rows} bad rows, which --bad-rows=skip leaves out" if bad_rows else ""
        raise RunError(
            f"{inputs[0]}: {rows} rows{left_out}: too few for training and {split.test:g} test and "
            f"{split.validation:g} validation rows; each split needs at least one"
        )
    return estimates, ByPosition(tuple(int(end) for end in np.cumsum(rows_per_split)))


def _count_rows(text: TextFormat, settings: PreparationSettings) -> tuple[int, int]:
    """Return the numbers of good and bad rows of the first file; with --bad-rows=stop, all count as good."""
    if settings.bad_rows == "stop":
        return text.count_rows(0), 0
    parse = text.parser()
    good = lines = 0
    for block in text.blocks(0, 0):
        parsed = parse(0, block)
        good, lines = good + len(parsed.rows), lines + parsed.lines
    return good, lines - good


def disk_needed(plan: Plan, request: Request, layout: Layout) -> int:
    """Return the peak disk use of a preparation in bytes.

    In addition to the prepared files, a preparation stores first a copy of the training rows and the saved ids, of
    which the final ones are about as large, then a second copy of half of the last day, then X.npz.
    """
    settings, schema = request.settings, layout.schema
    rows = plan.total_row_bytes
    training = min(rows, sum(layout.training_bytes(plan.row_bytes)))
    ids_per_row = schema.columns - schema.first_id
    max_ids = min(rows // schema.row_bytes, settings.max_ind_range if settings.max_ind_range > 0 else 1 << 32)
    ids = min(layout.key_bytes * ids_per_row * max_ids, MAX_ID_BYTES)
    copy = training if settings.randomize != "none" else 0
    last_day = 0 if layout.has_splits else plan.row_bytes[-1] // 2
    archive = rows if settings.write_npz else 0
    saved = ids if request.earlier is None else 0
    return rows + ids + max(copy + saved, last_day, archive)


def require_disk(folder: Path, needed: int, purpose: str, *, removable: int = 0, hint: str = "") -> None:
    """Raise RunError if fewer than `needed` bytes are free in a folder.

    purpose: what they are needed for. removable: bytes that will be freed before. hint: end of the message.
    """
    free = shutil.disk_usage(folder).free + removable
    if needed > free:
        raise RunError(
            f"{folder}: {needed / 1e9:,.3g} GB are needed {purpose} and {free / 1e9:,.3g} GB are free{hint}"
        )
