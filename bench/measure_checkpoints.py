"""Time saving and loading a checkpoint: python bench/measure_checkpoints.py [--gigabytes=2] [--runs=5].

Loads the tables of a model into newly allocated memory in three ways, in turn: with `torch.load` from the mapped
file, which verifies nothing; as the program does, but without computing CRC-32s; as the program does. Does so for
a file in the page cache and for one that is not. Saves in three ways: with `torch.save`; as the program does; only
the bytes of the tables. All include the fsync. Prints medians of the times, and of the ratios within a round.
"""

from __future__ import annotations

import checkout  # noqa: F401

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from command_line import existing_folder, script_parser
from mlperf.settings.kinds import at_least, positive
from mlperf.training.checkpoint_archive import read_archive
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
from mlperf.training.checkpoint_records import Records
from mlperf.util.files import atomic_file, sync, write_fully
from mlperf.util.memory import require_memory
from mlperf.util.program import run_program

DIMENSION = 128
CLOCKS = (time.perf_counter, time.process_time)
Tables = Mapping[str, torch.Tensor]


def main() -> None:
    """Print the tables."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--gigabytes", type=positive, default=2, metavar="X", help="size of the checkpoint")
    parser.add_argument("--runs", type=at_least(1), default=5, metavar="N", help="number of runs of each")
    parser.add_argument(
        "--folder", type=existing_folder, metavar="PATH", help="where to save (default: the temporary folder)"
    )
    flags = parser.parse_args()
    rows = max(1, int(flags.gigabytes * 1e9 / 26 / DIMENSION / 4))
    require_memory(2 * 26 * DIMENSION * 4 * rows, f"--gigabytes={flags.gigabytes:g}: tables, saved and loaded")
    block = torch.randn(26 * rows, DIMENSION)  # the tables are views of one block, as in a model
    tables = {f"emb_l.{number}.weight": table for number, table in enumerate(block.split(rows))}
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        path = Path(folder) / "model.pt"
        write_checkpoint(path, {"state_dict": tables})
        loading = {"torch.load": load_with_torch, "without CRC-32": load_unverified, "verified": load_verified}
        print(f"{'':43} {'elapsed':>12} {'ratio':>8} {'all cores':>12} {'ratio':>8}")
        ways = {name: partial(load, path, tables) for name, load in loading.items()}
        measure("load, in the page cache", ways, "without CRC-32", flags.runs)
        measure("load, from the disk", ways, "without CRC-32", flags.runs, before=partial(drop, path))
        saving = {"torch.save": save_with_torch, "program": save_verified, "bytes alone": write_bytes}
        ways = {name: partial(save, path, tables) for name, save in saving.items()}
        measure("save", ways, "torch.save", flags.runs)


def measure(
    title: str,
    ways: Mapping[str, Callable[[], None]],
    base: str,
    runs: int,
    before: Callable[[], None] | None = None,
) -> None:
    """Print one line per way: the medians of its times, and of their ratios to those of `base` in the same round.

    The times are elapsed seconds, and seconds of all cores, on which other programs have less effect.

    before: called before each way, and not timed. The first round is not counted.
    """
    rounds: list[dict[str, tuple[float, ...]]] = []
    for _ in range(runs + 1):
        times = {}
        for name, way in ways.items():
            if before is not None:
                before()
            start = [clock() for clock in CLOCKS]
            way()
            times[name] = tuple(clock() - begin for clock, begin in zip(CLOCKS, start, strict=True))
        rounds.append(times)
    for name in ways:
        line = f"{title:26} {name:16}"
        for clock in range(len(CLOCKS)):
            seconds = statistics.median(times[name][clock] for times in rounds[1:])
            ratio = statistics.median(times[name][clock] / times[base][clock] for times in rounds[1:])
            line += f" {seconds:10.3f} s {ratio:8.3f}"
        print(line, flush=True)


def drop(path: Path) -> None:
    """Remove a file from the page cache."""
    sync(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def empty_like(tables: Tables) -> dict[str, torch.Tensor]:
    """Return tensors of the same shapes whose memory is not resident yet."""
    return {name: torch.empty_like(table) for name, table in tables.items()}


def load_with_torch(path: Path, tables: Tables) -> None:
    """Load the file without verifying anything."""
    targets = empty_like(tables)
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    for name, target in targets.items():
        target.copy_(found[name])


def load_verified(path: Path, tables: Tables) -> None:
    """Load the file as the program does."""
    targets = empty_like(tables)
    with open_checkpoint(path) as file:
        file.fill((target, file.contents["state_dict"][name]) for name, target in targets.items())
        file.verify()


def load_unverified(path: Path, tables: Tables) -> None:
    """Load the file as the program does, but with all CRC-32s 0."""
    targets = empty_like(tables)
    with open_checkpoint(path) as file, path.open("rb") as opened:
        sources = [file.contents["state_dict"][name] for name in targets]
        archive = read_archive(opened.fileno())
        records = [replace(record, crc32=0) for record in archive.records.values()]
        base = sources[0].data_ptr() - archive.records["data/0"].offset
        with mock.patch("mlperf.training.checkpoint_records.bytes_crc32", return_value=0):
            unverified = Records(opened.fileno(), records, base)
            unverified.fill(zip(targets.values(), sources, strict=True))
            unverified.verify()


def save_with_torch(path: Path, tables: Tables) -> None:
    """Save with `torch.save`: one record, because the tables are views of one block."""
    with atomic_file(path) as file:
        torch.save({"state_dict": tables}, file)


def save_verified(path: Path, tables: Tables) -> None:
    """Save as the program does."""
    write_checkpoint(path, {"state_dict": tables})


def write_bytes(path: Path, tables: Tables) -> None:
    """Write the bytes of the tables, without any structure."""
    with atomic_file(path) as file:
        for table in tables.values():
            write_fully(file.fileno(), table.numpy().data)


if __name__ == "__main__":
    sys.exit(run_program("measure_checkpoints.py", main))
