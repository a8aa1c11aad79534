"""Progress of a long pass over data: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Rows, MB/s and time left, on stderr. `total`: bytes, of which `done` with `rows` were done before."""

    def __init__(self, what: str, total: int, done: int = 0, rows: int = 0) -> None:
        self._what = what
        self._total = total
        self._done_before = done
        self._bytes = done
        self._rows = rows
        self._started = self._said = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=what, unit="B", unit_scale=True, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def close(self, *, finished: bool = True) -> None:
        """Say how it ended, unless it did not."""
        if self._bar is not None:
            self._bar.close()
        elif finished:
            self._say()

    def add(self, size: int, rows: int) -> None:
        """Report `size` more bytes and `rows` more rows done."""
        self._bytes += size
        self._rows += rows
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
            self._bar.update(size)
        elif time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = max(self._said - self._started, 1e-3)
        new = self._bytes - self._done_before
        left = seconds * max(0, self._total - self._bytes) / max(new, 1)
        print(
            f"{self._what}: {self._rows:,} rows, {self._bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, "
            f"{new / 1e6 / seconds:,.0f} MB/s, {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )
