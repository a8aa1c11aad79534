"""What a preparation takes: memory, imports, a place for compiled parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import raw_text
from program import GOLDEN, ROOT

import mlperf


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


def test_compiled_parts_find_a_place_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # what is set below is undone
    places = []
    for _ in range(3):
        del os.environ["NUMBA_CACHE_DIR"]
        mlperf._find_room_for_compiled_parts()
        places.append(Path(os.environ["NUMBA_CACHE_DIR"]))
        assert places[-1].stat().st_mode & 0o777 == 0o700
        if len(places) == 2:
            places[-1].rmdir()
            places[-1].symlink_to("/etc")  # another user's trap
    assert places[0] == places[1] != places[2]
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    del os.environ["NUMBA_CACHE_DIR"]
    mlperf._find_room_for_compiled_parts()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_compiled_parts_find_a_place_where_the_home_may_not_even_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs as another user than the one whose home it has."""
    stat = os.stat

    def refuse(path: object, *arguments: object, **more: object) -> os.stat_result:
        if "/home/.cache" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # what is set below is undone
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    mlperf._find_room_for_compiled_parts()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).parent == tmp_path


@pytest.mark.parametrize("limit", [-1, 40_000_000])
def test_memory_does_not_grow_with_the_rows(limit: int, tmp_path: Path) -> None:
    """The same ids in ten times as many rows; buckets made small, so that both runs fill several."""
    rows = raw_text.text(raw_text.random_rows(2000, seed=1))
    peaks = []
    for times in (50, 500):
        for day in range(24):
            (tmp_path / f"day_{day}").write_bytes(rows * (times if day == 0 else 1))
        script = (
            "import pathlib, re\n"
            "from mlperf.data.criteo import prepare, shuffle\n"
            "shuffle._BUCKET_BYTES = 4 << 20\n"
            f"raw, place = pathlib.Path('{tmp_path}/day'), pathlib.Path('{tmp_path}/x{times}')\n"
            f"prepare.prepare(prepare.PreparationSettings('terabyte', raw, place, max_ind_range={limit}))\n"
            "print(re.search('VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    more_bytes = 450 * len(rows)
    assert peaks[1] - peaks[0] < 0.1 * more_bytes, peaks
