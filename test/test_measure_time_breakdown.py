"""bench/measure_time_breakdown.py, with tiny tables."""

from __future__ import annotations

import pytest
from bench_modules import printed


def test_cost_of_the_breakdown_is_measured_for_both_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, *lines = printed("measure_time_breakdown", monkeypatch, capsys, "--reduced", "--shapes=Kaggle-128")
    assert [line.rpartition(", ")[2].split()[0] for line in lines] == ["cpu", "autograd"]
    for line in lines:
        without, measured, _, ratio = map(float, line.split()[-4:])
        assert min(without, measured) > 0
        assert 0.1 < ratio < 10
