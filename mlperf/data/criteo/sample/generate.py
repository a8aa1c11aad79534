"""A made-up click log in the Terabyte layout with a planted signal, for machines without the real one."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from mlperf.data.criteo.sample.planted_signal import PlantedSignal
from mlperf.data.criteo.sample.render import render_rows
from mlperf.data.schema import TERABYTE_DAYS
from mlperf.util.errors import RunError
from mlperf.util.files import move_into_place, sync, write_atomically

NAME = "sample.json"
FORMAT_VERSION = 1
MIN_ROWS = 1000  # fewer make a test split without clicks possible

# The last day, whose first half is the test split, has more rows than the others: AUC needs them.
_LAST_DAY_SHARE = 1 / 6
_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True)
class SampleSettings:
    """Where to put day_0 ... day_23, how many rows they have together, and the seed of all that is in them."""

    folder: Path
    rows: int
    seed: int

    def rows_of_day(self, day: int) -> int:
        """Return the rows of a day; those the division leaves over go to the first days, one each."""
        last = round(self.rows * _LAST_DAY_SHARE)
        if day == TERABYTE_DAYS - 1:
            return last
        each, over = divmod(self.rows - last, TERABYTE_DAYS - 1)
        return each + (day < over)


@dataclass(frozen=True)
class Sample:
    """What `sample.json` says. The AUCs are those on the test split, the first half of day_23, rounded up."""

    seed: int
    rows: int
    click_rate: float
    best_auc: float
    dense_auc: float
    files: dict[str, int]  # bytes by name
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class _Day:
    """What is remembered of a day that was written: its clicks, and the scores that rank them best."""

    clicks: npt.NDArray[np.bool_]
    logit: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float32]


def make_sample(settings: SampleSettings) -> Sample:
    """Write the days and then `sample.json`, or return what is there if that is the same sample, whole.

    RunError if the folder holds days that no `sample.json` vouches for: they are somebody's data.
    """
    folder = settings.folder
    try:
        found = _read(folder)
        vouched = [] if found is None else _vouched(folder, found)
        if (
            found is not None
            and (found.seed, found.rows) == (settings.seed, settings.rows)
            and len(vouched) == TERABYTE_DAYS
        ):
            return found
        for path in sorted(folder.glob("day_*")):
            if path not in vouched:
                raise RunError(
                    f"{path}: not of a sample, perhaps somebody's data, and not overwritten: move it away or "
                    "name another --folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        return _make(settings, vouched)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: the sample cannot be made: {error.strerror}") from None


def _read(folder: Path) -> Sample | None:
    try:
        found = Sample(**json.loads((folder / NAME).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if found.format_version == FORMAT_VERSION else None


def _vouched(folder: Path, sample: Sample) -> list[Path]:
    """Return the days in the folder that are as large as `sample` says."""
    sizes = {folder / name: size for name, size in sample.files.items()}
    return [path for path, size in sizes.items() if path.is_file() and path.stat().st_size == size]


def _make(settings: SampleSettings, replaced: list[Path]) -> Sample:
    """Write every day under another name; when all are there, remove those `replaced` and rename."""
    signal = PlantedSignal(settings.seed)
    days = [f"day_{day}" for day in range(TERABYTE_DAYS)]
    parts = [settings.folder / f".{day}.part" for day in days]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda day: _write_day(signal, settings, day, parts[day]), range(TERABYTE_DAYS))
            bar = tqdm(made, "sample", TERABYTE_DAYS, unit="day", disable=None)  # None: only on a terminal
            written = list(bar)
        test = written[-1]
        split = slice((len(test.clicks) + 1) // 2)
        sample = Sample(
            seed=settings.seed,
            rows=settings.rows,
            click_rate=float(np.concatenate([day.clicks for day in written]).mean()),
            best_auc=float(roc_auc_score(test.clicks[split], test.logit[split])),
            dense_auc=float(roc_auc_score(test.clicks[split], test.dense[split])),
            files={day: part.stat().st_size for day, part in zip(days, parts, strict=True)},
        )
        # In this order each day in the folder is vouched for at every moment, and never taken for somebody's data.
        for old in replaced:
            old.unlink()
        write_atomically(settings.folder / NAME, json.dumps(asdict(sample), indent=1))
        for day, part in zip(days, parts, strict=True):
            move_into_place(part, settings.folder / day)
        return sample
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _write_day(signal: PlantedSignal, settings: SampleSettings, day: int, path: Path) -> _Day:
    stream = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(1, day)))
    left = settings.rows_of_day(day)
    blocks = []
    with path.open("wb") as file:
        while left:
            rows = signal.draw(min(left, _BLOCK_ROWS), stream)
            file.write(render_rows(rows.values, rows.empty).data)
            blocks.append((rows.clicks, rows.logit.astype(np.float32), rows.dense.astype(np.float32)))
            left -= len(rows.clicks)
    sync(path)
    return _Day(*(np.concatenate(column) for column in zip(*blocks, strict=True)))
