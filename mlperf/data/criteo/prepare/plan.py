"""What is to be prepared from what: the inputs, their days, and how much room it takes."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.parse import BlockParser
from mlperf.data.criteo.prepare.text_blocks import count_lines, opened, text_blocks
from mlperf.data.schema import KAGGLE_DAYS, ROW_BYTES, TABLES, TERABYTE_DAYS
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError
from mlperf.util.failures import damage

_SAMPLE_BYTES = 1 << 16
_ZIPPED_SAMPLE_BYTES = 1 << 24


def find_inputs(settings: PreparationSettings) -> list[Path]:
    """Return the raw files, each as it is or gzipped. RunError if one is missing or empty."""
    raw = settings.raw_data_file
    if settings.data_set == "kaggle":
        names = [raw]
    else:
        names = [raw.with_name(f"{raw.name}_{day}") for day in range(TERABYTE_DAYS)]
    paths = []
    for name in names:
        zipped = name.with_name(f"{name.name}.gz")
        path = zipped if not name.is_file() and zipped.is_file() else name
        if not path.is_file():
            which = f"one of the {len(names)} days" if len(names) > 1 else "the raw data"
            raise RunError(f"{path}: no such file, nor .gz; it is {which} that --raw-data-file={raw} names")
        if path.stat().st_size == 0:
            raise RunError(f"{path}: empty file; expected rows of 40 columns separated by tabs")
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Plan:
    """The inputs and what is known of them before they are read.

    text_bytes: of each input, unzipped. row_bytes: of each day, an estimate from the first lines of each input.
    ends: where the one input is cut into days, the good rows before the end of each; None: each input is a day.
    """

    inputs: tuple[Path, ...]
    text_bytes: tuple[int, ...]
    row_bytes: tuple[int, ...]
    ends: tuple[int, ...] | None

    @property
    def days(self) -> int:
        """The number of days, the last of which is for evaluation."""
        return len(self.row_bytes)

    def day_slices(self, file: int, first_row: int, rows: npt.NDArray[np.int64]) -> list[tuple[int, slice]]:
        """Return the day of each part of a block: `rows` are the numbers, in the block, of the rows that stay.

        first_row: the good rows of the file before the block.
        """
        if self.ends is None:
            return [(file, slice(0, len(rows)))]
        cuts = np.searchsorted(rows + first_row, [0, *self.ends])
        return [
            (day, slice(int(cuts[day]), int(cuts[day + 1])))
            for day in range(self.days)
            if cuts[day] < cuts[day + 1]
        ]


def make_plan(settings: PreparationSettings, inputs: Sequence[Path]) -> Plan:
    """Look at the beginning of each input; the one of Kaggle is counted, to cut it into days."""
    samples = [_sample(path) for path in inputs]
    text = tuple(size for size, _ in samples)
    rows = [int(size * share) for size, share in samples]
    if settings.data_set == "terabyte":
        return Plan(tuple(inputs), text, tuple(rows), None)
    count = _good_rows(inputs[0], settings)
    share, longer = divmod(count, KAGGLE_DAYS)
    if share == 0:
        raise RunError(f"{inputs[0]}: fewer than {KAGGLE_DAYS} rows, which are cut into {KAGGLE_DAYS} days")
    ends = np.cumsum([share + (day < longer) for day in range(KAGGLE_DAYS)])
    return Plan(tuple(inputs), text, (rows[0] // KAGGLE_DAYS,) * KAGGLE_DAYS, tuple(int(end) for end in ends))


def _good_rows(path: Path, settings: PreparationSettings) -> int:
    if settings.bad_rows == "stop":
        return count_lines(path)
    parser = BlockParser(settings.max_ind_range)
    return sum(len(parser.parse(block).rows) for block in text_blocks(path))


def _sample(path: Path) -> tuple[int, float]:
    """Return the bytes of the text, and the bytes its rows become for each byte of text."""
    with damage(path, "damaged gzip file") if path.suffix == ".gz" else nullcontext():
        with opened(path) as file:
            head = file.read(_SAMPLE_BYTES) or b""
        text_bytes = _unzipped_bytes(path) if path.suffix == ".gz" else path.stat().st_size
    return text_bytes, max(1, head.count(b"\n")) * ROW_BYTES / max(1, len(head))


def _unzipped_bytes(path: Path) -> int:
    """Return the size of a gzip file's text: the file ends in it, modulo 2^32, unless it is made of several parts.

    Then, and for the turns of 2^32, it is an estimate from how well the beginning is compressed.
    """
    size = path.stat().st_size
    with path.open("rb") as raw, gzip.open(raw) as text:
        begun = len(text.read(_ZIPPED_SAMPLE_BYTES))
        if len(text.read(1)) == 0:
            return begun
        estimate = size * begun / raw.tell()
        raw.seek(-4, 2)
        (low,) = struct.unpack("<I", raw.read(4))
    stored = max(0, round((estimate - low) / 2**32)) * 2**32 + low
    return stored if abs(stored - estimate) < estimate / 2 else int(estimate)


def disk_needed(plan: Plan, settings: PreparationSettings) -> int:
    """Return the bytes a whole preparation takes when it takes most.

    Beside its files there are at first a copy of the training rows and the ids' snapshot, then half the last day
    twice, then X.npz.
    """
    rows = sum(plan.row_bytes)
    distinct = min(rows // ROW_BYTES, settings.max_ind_range if settings.max_ind_range > 0 else 1 << 32)
    copy = sum(plan.row_bytes[:-1]) if settings.randomize != "none" else 0
    archive = rows if settings.write_npz else 0
    return rows + max(copy + min(4 * TABLES * distinct, 8 * 10**9), plan.row_bytes[-1] // 2, archive)
