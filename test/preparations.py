"""Preparations of small days of text, shared by the tests of prepared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import PreparationSettings

# Rows of each day, for raw_text.write_days.
DAYS = [11, 3, 2, 7, *([5] * 19), 9]


def preparation(raw: Path, processed: Path, **flags: object) -> PreparationSettings:
    """Return the settings of a preparation, by default of Terabyte data without shuffling."""
    chosen = {"data_set": "terabyte", "randomize": "none", **flags}
    return PreparationSettings(raw_data_file=raw, processed_data_file=processed, **chosen)  # type: ignore[arg-type]


def read_rows(path: Path) -> npt.NDArray[np.int32]:
    """Return the rows of a binary file, [rows, 40]."""
    return np.fromfile(path, CRITEO.dtype).reshape(-1, CRITEO.columns)
