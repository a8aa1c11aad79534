"""The kinds of attacks, with their numbers of cases in full and in the tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostile import checkpoints, contents, data_files, disk, kills, logs, paths, races
from hostile.pool import Case, Server, Verdict, run_cases


@dataclass(frozen=True)
class Kind:
    """cases(count, seed, folder, server) yields cases after preparing undamaged files in a folder."""

    cases: Callable[[int, int, Path, Server], Iterator[Case]]
    full: int
    reduced: int


KINDS = {
    "checkpoints": Kind(checkpoints.cases, full=2100, reduced=42),
    "contents": Kind(contents.cases, full=560, reduced=30),
    "data": Kind(data_files.cases, full=600, reduced=24),
    "logs": Kind(logs.cases, full=400, reduced=24),
    "kills": Kind(kills.cases, full=120, reduced=8),
    "paths": Kind(paths.cases, full=301, reduced=20),
    "races": Kind(races.cases, full=120, reduced=9),
    "disk": Kind(disk.cases, full=120, reduced=9),
}


def attack(
    kind: str,
    folder: Path,
    servers: Sequence[Server],
    *,
    count: int,
    seed: int,
    only: Collection[int] | None = None,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Run `count` cases of a kind, or those of them with the numbers `only`, and return the verdicts."""
    place = Path(tempfile.mkdtemp(dir=folder))
    cases = list(KINDS[kind].cases(count, seed, place, servers[0]))
    chosen = [case for number, case in enumerate(cases) if only is None or number in only]
    return run_cases(chosen, place, servers, tell)
