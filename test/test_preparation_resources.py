"""Memory use and imports of a preparation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import raw_text
from program import GOLDEN, ROOT


def test_preparation_does_not_import_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from mlperf.cli.prepare import main\n"
        f"flags = ['--data-set=terabyte', '--raw-data-file={GOLDEN}/terabyte/day', "
        f"'--processed-data-file={tmp_path}/x']\n"
        "assert main(flags) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x_train.bin").exists()


@pytest.mark.parametrize("limit", [-1, 40_000_000])
def test_memory_does_not_grow_with_the_rows(limit: int, tmp_path: Path) -> None:
    """The same ids in ten times as many rows. Buckets are small, so that both preparations fill several."""
    rows = raw_text.text(raw_text.random_rows(2000, seed=1))
    peaks = []
    for times in (50, 500):
        for day in range(24):
            (tmp_path / f"day_{day}").write_bytes(rows * (times if day == 0 else 1))
        script = (
            "import pathlib, re\n"
            "from preparations import preparation\n"
            "from mlperf.data.prepare import pipeline, shuffle\n"
            "shuffle.MAX_BUCKET_BYTES = 4 << 20\n"
            f"raw, processed = pathlib.Path('{tmp_path}/day'), pathlib.Path('{tmp_path}/x{times}')\n"
            "settings = preparation(raw, processed, randomize='total', "
            f"max_ind_range={limit})\n"
            "pipeline.prepare(settings)\n"
            "print(re.search('VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) * 1024)
    more_bytes = 450 * len(rows)
    assert peaks[1] - peaks[0] < 0.1 * more_bytes, peaks
