"""bench/measure_optimizers.py, with tiny tables."""

from __future__ import annotations

import pytest
from bench_modules import printed


def test_every_optimizer_and_precision_of_the_tables_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--reduced", "--shapes=Kaggle-128", "--precision=bf16")
    _, _, *lines = printed("measure_optimizers", monkeypatch, capsys, *flags)
    assert lines[0] == "Kaggle-128 reduced, tables of at most 1,000 rows, batch 128"
    assert len(lines) == 1 + 3 * 4  # for each optimizer, three precisions, one of them with both engines
    assert lines[1].split()[:4] == ["bf16,", "fp32,", "sgd,", "cpu"]
    assert float(lines[1].split()[-1]) == 1
    assert all(float(line.split()[-2]) > 0 for line in lines[1:])
