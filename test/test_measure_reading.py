"""bench/measure_reading.py: every way of reading is timed with every number of threads that the cores allow."""

from __future__ import annotations

import os

import pytest
from bench_modules import bench_module, printed

from mlperf.util.errors import UsageError


@pytest.mark.usefixtures("restored_threads")
def test_every_way_of_reading_is_timed_with_each_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _, *lines = printed("measure_reading", monkeypatch, capsys, "--reduced")
    assert "20,000 rows" in first
    assert "30 million samples/s are 4.8 GB/s" in first
    headings = [line for line in lines if not line.startswith(" ")]
    cores = len(os.sched_getaffinity(0))
    assert headings == [f"{count} thread{'s'[: count > 1]}" for count in (1, 2, 4, 8, 16) if count <= cores]
    rows = [line for line in lines if line.startswith(" ")]
    assert len(rows) == len(headings) * 9
    for row in rows:
        gigabytes, ratio, *samples = map(float, row[54:].split())
        assert gigabytes > 0
        if "plain copy" in row:
            assert (ratio, samples) == (1, [])
        else:
            assert samples == [pytest.approx(1000 * gigabytes / 160, rel=0.1, abs=0.1)]


@pytest.mark.parametrize("flag", ["--rounds=0", "--rows=-1"])
def test_number_out_of_range_is_refused(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["measure_reading.py", flag])
    with pytest.raises(UsageError, match=r"^--r[a-z]+: .* is not a whole number from 1 "):
        bench_module("measure_reading").main()
