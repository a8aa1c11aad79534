"""Progress of a long pass over data: a bar of tqdm on a terminal, otherwise a log line every 10 seconds."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0

_log = logging.getLogger(__name__)


class Progress:
    """Reports rows, MB/s and the time left.

    task: name of the task. total_bytes: size of the whole pass.
    done_bytes, done_rows: part that an interrupted process has already done.
    """

    def __init__(self, task: str, total_bytes: int, done_bytes: int = 0, done_rows: int = 0) -> None:
        self._task = task
        self._total = total_bytes
        self._done_before = done_bytes
        self._bytes = done_bytes
        self._rows = done_rows
        self._started = self._logged = time.monotonic()
        self._bar = _bar(task, total_bytes, done_bytes) if sys.stderr.isatty() else None

    def add(self, size: int, rows: int) -> None:
        """Report that `size` more bytes and `rows` more rows are done."""
        self._bytes += size
        self._rows += rows
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
            self._bar.update(size)
        elif time.monotonic() - self._logged > _SECONDS_BETWEEN_LINES:
            self._log_line()

    def close(self, *, finished: bool = True) -> None:
        """End the report, with a last line if the pass is finished."""
        if self._bar is not None:
            self._bar.close()
        elif finished:
            self._log_line()

    def _log_line(self) -> None:
        self._logged = time.monotonic()
        seconds = max(self._logged - self._started, 1e-3)
        new = self._bytes - self._done_before
        left = seconds * max(0, self._total - self._bytes) / max(new, 1)
        _log.info(
            f"{self._task}: {self._rows:,} rows, {self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
            f"{new / 1e6 / seconds:,.0f} MB/s, {left:,.0f} s left"
        )


def _bar(task: str, total_bytes: int, done_bytes: int) -> Any:
    """Return a bar, or None without tqdm, which only bars need."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total_bytes, initial=done_bytes, desc=task, unit="B", unit_scale=True, dynamic_ncols=True)
