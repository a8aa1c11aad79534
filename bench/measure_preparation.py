"""Time the preparation of made-up text against a plain copy of it: python bench/measure_preparation.py [--rows N].

What is timed is the call, with compilation done: text to the shuffled files with manifest, fsync included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare
from mlperf.data.criteo.sample import SampleSettings, make_sample


def main() -> None:
    """Print the median MB/s of a copy and of both kinds of preparation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        folder = Path(name)
        make_sample(SampleSettings(folder, rows=24_000, seed=1))
        prepare_once(folder, "total")  # compiles
        for day in range(24):
            (folder / f"day_{day}").unlink()
        sample = make_sample(SampleSettings(folder, rows=flags.rows, seed=1))
        megabytes = sum(sample.files.values()) / 1e6
        print(
            f"{flags.rows:,} rows, {megabytes:,.0f} MB of text, {os.cpu_count()} cores, median of {flags.repeats}"
        )
        copy = timed(lambda: copy_once(folder, sample.files), flags.repeats)
        print(f"{'copy of the text':32}{megabytes / copy:8.0f} MB/s{1:8.2f}")
        for randomize in ("none", "total"):
            seconds = timed(lambda how=randomize: prepare_once(folder, how), flags.repeats)  # type: ignore[misc]
            what = f"--data-randomize={randomize}"
            print(f"{what:32}{megabytes / seconds:8.0f} MB/s{copy / seconds:8.2f}")


def prepare_once(folder: Path, randomize: str) -> None:
    """Prepare from the beginning."""
    place = folder / "prepared"
    place.with_suffix(".json").unlink(missing_ok=True)
    for split in ("train", "test", "val"):
        (folder / f"prepared_{split}.bin").unlink(missing_ok=True)
    prepare(PreparationSettings("terabyte", folder / "day", place, max_ind_range=40_000_000, randomize=randomize))


def copy_once(folder: Path, files: dict[str, int]) -> None:
    """Copy the text and bring it to the disk."""
    for name in files:
        copy = folder / f"copy_of_{name}"
        shutil.copyfile(folder / name, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        copy.unlink()


def timed(work: Callable[[], None], repeats: int) -> float:
    """Return the median seconds of `work`."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
