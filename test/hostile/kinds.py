"""The kinds of attacks, with their numbers of cases in full and in the tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile import checkpoints, contents, data_files, kills, logs, paths
from hostile.pool import Case, Server, Verdict, run_cases, running_server


@dataclass(frozen=True)
class Kind:
    """cases(count, seed, folder, server) yields cases after preparing undamaged files in a folder."""

    cases: Callable[[int, int, Path, Server], Iterator[Case]]
    full: int
    reduced: int


KINDS = {
    "checkpoints": Kind(checkpoints.cases, full=2100, reduced=84),
    "contents": Kind(contents.cases, full=560, reduced=50),
    "data": Kind(data_files.cases, full=600, reduced=45),
    "logs": Kind(logs.cases, full=400, reduced=40),
    "kills": Kind(kills.cases, full=120, reduced=12),
    "paths": Kind(paths.cases, full=10_000, reduced=24),
}


def attack(
    kind: str,
    folder: Path,
    *,
    count: int,
    seed: int,
    servers: int = 1,
    only: Collection[int] | None = None,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Run `count` cases of a kind, or those of them with the numbers `only`, and return the verdicts."""
    place = Path(tempfile.mkdtemp(dir=folder))
    place.chmod(0o755)
    with running_server(place) as server:
        cases = list(KINDS[kind].cases(count, seed, place, server))
    chosen = [case for number, case in enumerate(cases) if only is None or number in only]
    return run_cases(chosen, place, servers=servers, tell=tell)
