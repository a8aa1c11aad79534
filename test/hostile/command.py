"""Attack the programs and print what became of it.

The exit status is 1 if a case failed. Each case has a number within its kind; --only repeats it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from hostile.kinds import KINDS, attack
from hostile.pool import Verdict, running_servers
from hostile.report import table


def main() -> int:
    """Run the attack that the flags describe and return the exit status."""
    parser = argparse.ArgumentParser("attack.py", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=list(KINDS), nargs="*", default=list(KINDS))
    parser.add_argument("--reduced", action="store_true", help="the numbers of cases of the tests")
    parser.add_argument("--only", type=int, nargs="*", help="only the cases with these numbers")
    parser.add_argument("--servers", type=int, default=len(os.sched_getaffinity(0)))
    flags = parser.parse_args()
    started, verdicts = time.monotonic(), []
    with (
        tempfile.TemporaryDirectory(prefix="attack-") as folder,
        running_servers(Path(folder), flags.servers) as servers,
    ):
        for kind in flags.kind:
            verdicts += attack(
                kind,
                Path(folder),
                servers,
                count=KINDS[kind].reduced if flags.reduced else KINDS[kind].full,
                seed=flags.seed,
                only=flags.only,
                tell=tell,
            )
    print(table(verdicts))
    failed = sum(verdict.failure is not None for verdict in verdicts)
    print(f"{len(verdicts):,} cases, {failed:,} failed, seed {flags.seed}, {time.monotonic() - started:.0f} s")
    return int(failed > 0)


def tell(verdict: Verdict) -> None:
    """Print a failure."""
    if verdict.failure is not None:
        print(f"FAILED {verdict.case.kind}, {verdict.case.name}: {verdict.failure[:400]}", flush=True)
