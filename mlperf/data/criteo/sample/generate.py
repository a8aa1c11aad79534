"""The sample: a synthetic click log in the format of the Terabyte data, for machines without that data."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.criteo.days import divide, split_rows
from mlperf.data.criteo.sample.planted_signal import PlantedSignal
from mlperf.data.criteo.sample.render import render_rows
from mlperf.util.errors import RunError
from mlperf.util.files import atomic_file, read_regular, write_atomically
from mlperf.util.locking import exclusive
from mlperf.util.strict_json import SchemaError, fields, file_name, parse_json, whole
from mlperf.util.threads import Threads, available_cores

NAME = "sample.json"
FORMAT_VERSION = 1

# The last day, whose first half is the test split, has more rows than the others, for an accurate AUC.
_LAST_DAY_FRACTION = 1 / 6
_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True)
class SampleSettings:
    """folder: folder of day_0 ... day_23. rows: total number of rows over all days. seed: random seed."""

    folder: Path
    rows: int
    seed: int

    def rows_of_day(self, day: int) -> int:
        """Return the number of rows of a day."""
        last_day = round(self.rows * _LAST_DAY_FRACTION)
        return [*divide(self.rows - last_day, TERABYTE_DAYS - 1), last_day][day]


@dataclass(frozen=True)
class Sample:
    """Content of `sample.json`.

    best_auc, dense_auc: best possible AUCs on the test split, with all features and with the dense features alone.
    files: size in bytes of each day, by name.
    """

    seed: int
    rows: int
    click_rate: float
    best_auc: float
    dense_auc: float
    files: dict[str, int]
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class _Day:
    """Number of clicks of a day. Of the last day, with N rows, also clicks, logits and their dense parts [N]."""

    click_count: int
    clicks: npt.NDArray[np.bool_]
    logit: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float32]


def make_sample(settings: SampleSettings) -> Sample:
    """Write the days and `sample.json`, unless the folder already has the same complete sample.

    Raises RunError if the folder contains days that do not belong to a sample: they may be real data.
    """
    folder = settings.folder
    try:
        found = _read(folder)
        days = [] if found is None else _days_of(folder, found)
        if (
            found is not None
            and (found.seed, found.rows) == (settings.seed, settings.rows)
            and len(days) == TERABYTE_DAYS
        ):
            return found
        for path in sorted(folder.glob("day_*")):
            if path not in days:
                raise RunError(
                    f"{path}: does not belong to a sample and may be real data, so it is not overwritten; move it "
                    "or choose another --folder"
                )
        for path in (folder / f"day_{day}" for day in range(TERABYTE_DAYS)):
            if path.is_symlink():
                raise RunError(f"{path}: is a link, which is not replaced; move it or choose another --folder")
        _require_no_other_description(folder, found)
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".sample.lock", "another process is generating a sample in this folder"):
            return _make(settings, days)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: cannot write the sample: {error.strerror}") from None


def _read(folder: Path) -> Sample | None:
    """Return the content of `sample.json`; None if there is none, or if it is damaged or of another version."""
    try:
        entries = fields(
            parse_json(read_regular(folder / NAME)), "it", [each.name for each in dataclass_fields(Sample)]
        )
        files = {file_name(name, "a file"): whole(size, "a size", 0) for name, size in entries["files"].items()}
        found = Sample(**{**entries, "files": files})
        if not all(isinstance(rate, float) for rate in (found.click_rate, found.best_auc, found.dense_auc)):
            return None
    except (FileNotFoundError, SchemaError, AttributeError):
        return None
    return found if found.format_version == FORMAT_VERSION else None


def _require_no_other_description(folder: Path, found: Sample | None) -> None:
    """Raise RunError if `sample.json` does not describe a sample, or is a link. found: its content."""
    path = folder / NAME
    if os.path.lexists(path) and (found is None or path.is_symlink()):
        raise RunError(
            f"{path}: does not describe a sample, or is damaged, and is not overwritten; move it or choose "
            "another --folder"
        )


def _days_of(folder: Path, sample: Sample) -> list[Path]:
    """Return the days in the folder that belong to `sample`: those of the right size."""
    sizes = {folder / name: size for name, size in sample.files.items()}
    return [path for path, size in sizes.items() if path.is_file() and path.stat().st_size == size]


def _make(settings: SampleSettings, old_days: list[Path]) -> Sample:
    """Write all days under temporary names, then remove `old_days` and rename the new ones."""
    signal = PlantedSignal(settings.seed)
    days = [f"day_{day}" for day in range(TERABYTE_DAYS)]
    with ExitStack() as moves:  # of the days into place, at the end of the block
        files = [moves.enter_context(atomic_file(settings.folder / day)) for day in days]
        written = _write_days(signal, settings, files)
        test = written[-1]
        split = slice(split_rows([len(test.clicks)])["test"])
        sample = Sample(
            seed=settings.seed,
            rows=settings.rows,
            click_rate=sum(day.click_count for day in written) / settings.rows,
            best_auc=float(roc_auc_score(test.clicks[split], test.logit[split])),
            dense_auc=float(roc_auc_score(test.clicks[split], test.dense[split])),
            files={day: os.fstat(file.fileno()).st_size for day, file in zip(days, files, strict=True)},
        )
        # In this order every day in the folder always belongs to sample.json and is never mistaken for real data.
        for old in old_days:
            old.unlink()
        write_atomically(settings.folder / NAME, json.dumps(asdict(sample), indent=1))
    return sample


def _write_days(signal: PlantedSignal, settings: SampleSettings, files: Sequence[BinaryIO]) -> list[_Day]:
    stopped = threading.Event()
    with Threads(available_cores()) as pool:
        made = pool.map(lambda day: _write_day(signal, settings, day, files[day], stopped), range(len(files)))
        try:
            # disable=None: a bar only on a terminal
            return list(tqdm(made, "sample", len(files), unit="day", disable=None))
        finally:
            stopped.set()  # after Ctrl-C, the days in progress end with their current block


def _write_day(
    signal: PlantedSignal, settings: SampleSettings, day: int, file: BinaryIO, stopped: threading.Event
) -> _Day:
    stream = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(1, day)))
    remaining = settings.rows_of_day(day)
    is_last = day == TERABYTE_DAYS - 1
    blocks, click_count = [], 0
    while remaining and not stopped.is_set():
        rows = signal.draw(min(remaining, _BLOCK_ROWS), stream)
        file.write(render_rows(rows.values, rows.empty).data)
        click_count += int(rows.clicks.sum())
        kept = slice(None if is_last else 0)
        columns = (rows.clicks, rows.logit.astype(np.float32), rows.dense.astype(np.float32))
        blocks.append(tuple(column[kept] for column in columns))
        remaining -= len(rows.clicks)
    file.flush()
    os.fsync(file.fileno())
    return _Day(click_count, *(np.concatenate(column) for column in zip(*blocks, strict=True)))
