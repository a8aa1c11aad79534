"""From raw Criteo text to the binary files: train, test and val, and their manifest. Knows no torch."""

from __future__ import annotations

import fcntl
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from mlperf.data.criteo.manifest import SPLITS, FileFacts, Manifest, Place, read_counts, sync_folder
from mlperf.data.criteo.number import Numbering
from mlperf.data.criteo.parse import Rows, count_rows, describe, label_blocks, parse_block, text_blocks
from mlperf.data.criteo.row_format import KAGGLE_DAYS, ROW_BYTES, TERABYTE_DAYS
from mlperf.data.criteo.sampling import RowSampler
from mlperf.data.criteo.shuffle import Shuffler, write_exactly
from mlperf.data.progress import Progress
from mlperf.errors import RunError


@dataclass(frozen=True)
class PreparationSettings:
    """What to prepare from what. max_ind_range: ids are taken modulo it, -1: as they are."""

    data_set: str  # "kaggle" or "terabyte"
    raw_data_file: Path
    processed_data_file: Path
    max_ind_range: int = -1
    randomize: str = "total"  # or "day" or "none"
    sub_sample_rate: float = 0.0  # share of the rows of label 0 that is dropped
    seed: int = 123

    def flags(self) -> dict[str, str | int | float]:
        """Return what, besides the inputs, decides the bytes of the result."""
        return {
            "data_set": self.data_set,
            "max_ind_range": self.max_ind_range,
            "data_randomize": self.randomize,
            "data_sub_sample_rate": self.sub_sample_rate,
            "numpy_rand_seed": self.seed,
        }


@dataclass(frozen=True)
class PreparedData:
    """Prepared data that is whole. counts: rows per table. None: nobody wrote it down."""

    train: Path
    test: Path
    val: Path
    counts: tuple[int, ...]
    train_rows: int
    test_rows: int
    val_rows: int
    data_set: str | None = None
    max_ind_range: int | None = None
    sub_sample_rate: float | None = None


def open_prepared(processed_data_file: Path, raw_data_file: Path | None = None) -> PreparedData | None:
    """Return the prepared data at a place, None if there is none or its preparation did not finish.

    Files of another program have no manifest: their counts come from `<raw_data_file>_fea_count.npz`, or from
    the one file of that ending in their folder. RunError if what is there is damaged.
    """
    place = Place.named(processed_data_file)
    manifest = Manifest.read(place.manifest)
    if manifest is None:
        return _open_foreign(place, raw_data_file)
    if not manifest.is_finished(place) and any(place.beside(f"_{split}.bin.part").exists() for split in SPLITS):
        return None
    manifest.verify(place)
    return _described(place, manifest)


def prepare(settings: PreparationSettings) -> PreparedData:
    """Prepare the data, or return what was prepared before with the same flags from the same inputs.

    RunError names file, row and column of what is wrong in the text; nothing that looks finished is left then.
    """
    place = Place.named(settings.processed_data_file)
    inputs = _inputs(settings)
    try:
        place.prefix.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            facts = [FileFacts.of(path) for path in inputs]
            manifest = Manifest.read(place.manifest)
            foreign = None if manifest is not None else _open_foreign(place, settings.raw_data_file)
            if foreign is not None:  # another program's work, which is days of it: used, and never overwritten
                return foreign
            same = manifest is not None and (manifest.flags, manifest.inputs) == (settings.flags(), facts)
            if manifest is not None and same and manifest.is_finished(place):
                manifest.verify(place)
                return _described(place, manifest)
            return _described(place, _make(settings, place, inputs, facts))
    except OSError as error:
        raise RunError(
            f"{error.filename or place.prefix}: the data cannot be prepared: {error.strerror}"
        ) from None


def _inputs(settings: PreparationSettings) -> list[Path]:
    raw = settings.raw_data_file
    if settings.data_set == "kaggle":
        paths = [raw]
    else:
        paths = [raw.with_name(f"{raw.name}_{day}") for day in range(TERABYTE_DAYS)]
    for path in paths:
        if not path.is_file():
            which = f"one of the {len(paths)} days" if len(paths) > 1 else "the raw data"
            raise RunError(f"{path}: no such file; it is {which} that --raw-data-file={raw} names")
        if path.stat().st_size == 0:
            raise RunError(f"{path}: empty file; expected rows of 40 columns separated by tabs")
    return paths


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    path = place.beside(".lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except BlockingIOError:
            ours = False
        if not ours:  # locked, or removed in this moment by the one that had it
            raise RunError(f"{path}: another preparation is writing to this place")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _described(place: Place, manifest: Manifest) -> PreparedData:
    return PreparedData(
        train=place.split("train"),
        test=place.split("test"),
        val=place.split("val"),
        counts=tuple(manifest.counts),
        train_rows=manifest.rows("train"),
        test_rows=manifest.rows("test"),
        val_rows=manifest.rows("val"),
        data_set=str(manifest.flags["data_set"]),
        max_ind_range=int(manifest.flags["max_ind_range"]),
        sub_sample_rate=float(manifest.flags["data_sub_sample_rate"]),
    )


def _open_foreign(place: Place, raw_data_file: Path | None) -> PreparedData | None:
    paths = {split: place.split(split) for split in SPLITS}
    if not (paths["train"].is_file() and paths["test"].is_file()):
        return None
    rows = {}
    for split, path in paths.items():
        size = path.stat().st_size if path.is_file() else 0
        if size % ROW_BYTES or (size == 0 and split != "val"):
            raise RunError(f"{path}: {size} bytes; allowed is a multiple of {ROW_BYTES}, and not 0")
        rows[split] = size // ROW_BYTES
    return PreparedData(
        train=paths["train"],
        test=paths["test"],
        val=paths["val"],
        counts=read_counts(_counts_file(place, raw_data_file)),
        train_rows=rows["train"],
        test_rows=rows["test"],
        val_rows=rows["val"],
    )


def _counts_file(place: Place, raw_data_file: Path | None) -> Path:
    if raw_data_file is not None:
        named = raw_data_file.with_name(raw_data_file.name.removesuffix(".txt") + "_fea_count.npz")
        if named.is_file():
            return named
    found = sorted(place.prefix.parent.glob("*_fea_count.npz"))
    if len(found) != 1:
        raise RunError(
            f"{place.split('train')}: has no manifest {place.manifest.name}, and its folder holds {len(found)} "
            "files *_fea_count.npz with the rows per table; exactly one is needed, or --raw-data-file=<prefix>"
        )
    return found[0]


def _make(settings: PreparationSettings, place: Place, inputs: list[Path], facts: list[FileFacts]) -> Manifest:
    parts = {split: place.beside(f"_{split}.bin.part") for split in SPLITS}
    spill = place.beside("_shuffle.part")
    numbering = Numbering()
    try:
        sampler = RowSampler(settings.seed, settings.sub_sample_rate)
        days = _rows_per_day(settings, inputs, sampler)
        test_rows = (days[-1] + 1) // 2
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = _numbered_rows(settings, inputs, facts, numbering, sampler, pool)
            cut = _Cutter(rows)
            checksums = {"train": _write_train(settings, parts["train"], spill, cut, days[:-1], facts)}
            for split, count in (("test", test_rows), ("val", days[-1] - test_rows)):
                checksums[split] = _write(parts[split], cut.take(count))
        manifest = Manifest(
            flags=settings.flags(),
            inputs=facts,
            rows_per_day=days,
            counts=list(numbering.counts),
            files={
                split: FileFacts(
                    place.split(split).name,
                    parts[split].stat().st_size,
                    parts[split].stat().st_mtime_ns,
                    checksums[split],
                )
                for split in SPLITS
            },
        )
        # The manifest comes first: a file without one would be taken for another program's. Until the last
        # rename the manifest does not match what is there, and nobody trains on that.
        manifest.write(place.manifest)
        for split in SPLITS:
            os.replace(parts[split], place.split(split))
        sync_folder(place.prefix.parent)
        return manifest
    finally:
        for path in (*parts.values(), spill):
            path.unlink(missing_ok=True)


def _rows_per_day(settings: PreparationSettings, inputs: list[Path], sampler: RowSampler) -> list[int]:
    """Count the rows that remain of each day; days of Kaggle are equal shares of all rows, the first longer."""
    if settings.data_set == "terabyte":
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            days = list(pool.map(partial(_rows_kept, sampler), inputs, range(len(inputs))))
    else:
        share, longer = divmod(count_rows(inputs[0]), KAGGLE_DAYS)
        if share == 0:
            raise RunError(f"{inputs[0]}: fewer than {KAGGLE_DAYS} rows, which are cut into {KAGGLE_DAYS} days")
        shares = [share + (day < longer) for day in range(KAGGLE_DAYS)]
        days = shares if sampler.rate == 0 else _kaggle_rows_kept(sampler, inputs[0], shares)
    for split, rows in (("training", sum(days[:-1])), ("test", days[-1])):
        if rows == 0:
            raise RunError(
                f"{inputs[-1]}: --data-sub-sample-rate={sampler.rate} leaves no rows for the {split} split"
            )
    return days


def _rows_kept(sampler: RowSampler, path: Path, file: int) -> int:
    if sampler.rate == 0:
        return count_rows(path)
    row = kept = 0
    for labels in label_blocks(path):
        kept += int(np.count_nonzero(sampler.kept(labels, file, row)))
        row += len(labels)
    return kept


def _kaggle_rows_kept(sampler: RowSampler, path: Path, shares: list[int]) -> list[int]:
    row = 0
    ends = np.cumsum(shares)
    days = np.zeros(len(shares), np.int64)
    for labels in label_blocks(path):
        kept_rows = row + np.flatnonzero(sampler.kept(labels, 0, row))
        days += np.bincount(np.searchsorted(ends, kept_rows, side="right"), minlength=len(shares))
        row += len(labels)
    return [int(rows) for rows in days]


def _numbered_rows(
    settings: PreparationSettings,
    inputs: list[Path],
    facts: list[FileFacts],
    numbering: Numbering,
    sampler: RowSampler,
    pool: Executor,
) -> Iterator[Rows]:
    """Yield blocks of finished rows in order: some blocks ahead are parsed while one is numbered."""
    ahead = os.cpu_count() or 1
    pending: deque[tuple[Path, int, Future[tuple[Rows, tuple[int, int] | None]]]] = deque()
    row = 0
    current: Path | None = None
    what = f"preparing {settings.raw_data_file.name}"

    with Progress(what, sum(file.size for file in facts)) as progress:

        def finish_oldest() -> Rows:
            nonlocal row, current
            path, size, future = pending.popleft()
            rows, error = future.result()
            if path != current:
                current, row = path, 0
            if error is not None:
                raise describe(path, row + len(rows) + 1, error)
            kept = rows
            if sampler.rate > 0:
                kept = rows[sampler.kept(rows[:, 0], inputs.index(path), row)]
            numbering.number(kept, pool)
            row += len(rows)
            progress.add(size, len(rows))
            return kept

        try:
            for path in inputs:
                for block in text_blocks(path):
                    pending.append((path, len(block), pool.submit(parse_block, block, settings.max_ind_range)))
                    if len(pending) > ahead:
                        yield finish_oldest()
            while pending:
                yield finish_oldest()
        finally:
            for _, _, future in pending:
                future.cancel()


class _Cutter:
    """Cuts a stream of blocks at given numbers of rows."""

    def __init__(self, blocks: Iterator[Rows]) -> None:
        self._blocks = blocks
        self._rest: Rows | None = None

    def take(self, count: int) -> Iterator[Rows]:
        """Yield the next `count` rows."""
        while count > 0:
            block = self._rest if self._rest is not None else next(self._blocks)
            self._rest = block[count:] if len(block) > count else None
            yield block[:count]
            count -= min(count, len(block))


def _write_train(
    settings: PreparationSettings, path: Path, spill: Path, cut: _Cutter, days: list[int], facts: list[FileFacts]
) -> int:
    groups = {"none": [], "day": [[day] for day in days], "total": [days]}[settings.randomize]
    if not groups:
        return _write(path, cut.take(sum(days)))
    checksum = 0
    path.unlink(missing_ok=True)
    for stream, group in enumerate(groups):
        # Text is a little longer than the rows it becomes: 160 bytes for about 200.
        size = sum(file.size for file in facts) * sum(group) // max(1, sum(days))
        with Shuffler(spill, size, settings.seed, stream) as shuffler:
            for rows in cut.take(sum(group)):
                shuffler.add(rows)
            checksum = _write(path, shuffler.permuted(), checksum)
    return checksum


def _write(path: Path, blocks: Iterator[Rows], checksum: int | None = None) -> int:
    """Write rows to the end of a new file or, with the `checksum` so far, of an old one; return the CRC-32."""
    opened: partial[IO[bytes]] = partial(path.open, buffering=0)
    with opened("wb" if checksum is None else "ab") as file:
        value = checksum or 0
        for rows in blocks:
            value = zlib.crc32(rows.data, value)
            write_exactly(file.fileno(), rows)
        os.fsync(file.fileno())
    return value
