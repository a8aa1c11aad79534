"""The official checker of mlperf-logging, called on a log for one edition after the other."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.errors import RunError

_PREFIX = ":::MLLOG "


@dataclass(frozen=True)
class CheckResult:
    """The verdict on a log for one edition; `findings` are the checker's words, or why it was not believed."""

    edition: str
    passed: bool
    findings: tuple[str, ...]


def check_log(path: Path, editions: Sequence[str]) -> list[CheckResult]:
    """Return the official checker's verdict on the log for each of `editions`.

    A log passes only without any warning, and only if its run was not aborted: the checker itself accepts an
    aborted run that met the target before. RunError if there is no such file.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such log")
    aborted = _aborted(path)
    return [_check(path, edition, aborted) for edition in editions]


def _check(path: Path, edition: str, aborted: bool) -> CheckResult:
    # The checker writes a log of its own into the working directory.
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mlperf_logging.compliance_checker"),
                *("--usage", "training", "--ruleset", edition, str(path.resolve())),
            ],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    findings = [line for line in lines if not line.startswith("INFO")]
    if aborted:
        findings.append("run_stop has status aborted")
    return CheckResult(edition, done.returncode == 0 and not findings, tuple(findings))


def _aborted(path: Path) -> bool:
    stops = [event for event in read_events(path) if event.get("key") == "run_stop"]
    return any((stop.get("metadata") or {}).get("status") != "success" for stop in stops)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the MLPerf events of a log; lines of other kinds, or damaged ones, are passed over."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(_PREFIX):
                try:
                    event = json.loads(line.removeprefix(_PREFIX))
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event
