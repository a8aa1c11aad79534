"""Runs to plot, from the logs and folders that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.plots.curves import Curves, NoCurvesError, OtherBenchmarkError
from mlperf.plots.log_files import NoLogsError, find_logs, logs_beside_results
from mlperf.plots.metrics_curves import curves_of_records
from mlperf.reporting.metrics_reader import RunRecords, is_metrics_file, read_records
from mlperf.settings.run import SETTINGS_FILE
from mlperf.util.errors import RunError
from mlperf.util.plural import counted

_MAX_NAMED = 3  # files that a message names; the others are counted


@dataclass(frozen=True)
class Run:
    """A log or metrics file, and its curves.

    argument: index of the argument that named the file or its folder. records: of a metrics file, otherwise None.
    """

    path: Path
    argument: int
    curves: Curves
    records: RunRecords | None = None

    @classmethod
    def of(cls, path: Path, argument: int = 0) -> Run:
        """Read a file. Errors as of `Curves.of_log`."""
        if not is_metrics_file(path):
            return cls(path, argument, Curves.of_log(path))
        records = read_records(path)
        return cls(path, argument, curves_of_records(records), records)


def _logs_of(argument: Path, left_out: dict[str, list[Path]]) -> list[Path]:
    """Return the logs of an argument; what is left out of a folder is added to `left_out`, by reason."""
    if not argument.is_dir():
        return [argument]
    try:
        paths = find_logs(argument)
    except NoLogsError:
        if not (argument / SETTINGS_FILE).is_file():  # not the folder of a run
            raise
        left_out.setdefault("the run has no metrics; it did not train", []).append(argument)
        return []
    if beside := logs_beside_results(argument, paths):
        left_out["only the logs in results/ are plotted"] = beside
    return paths


def read_runs(arguments: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs of logs and folders, and warnings of runs that failed.

    A log without curves, as a run that dies early leaves it, is left out with a warning. In a folder, so are logs
    of other benchmarks and those beside its subfolder `results`; and so are folders of runs that did not
    train. RunError if a log cannot be read, a named log is of another benchmark, or no run is left.
    """
    runs: list[Run] = []
    left_out: dict[str, list[Path]] = {}  # by reason
    for number, argument in enumerate(arguments):
        paths = _logs_of(argument, left_out)
        for path in paths:
            try:
                runs.append(Run.of(path, number))
            except OtherBenchmarkError as error:
                if path == argument:
                    raise
                left_out.setdefault(error.reason, []).append(path)
            except NoCurvesError as error:
                left_out.setdefault(error.reason, []).append(path)
    if not runs:
        raise RunError("; ".join(f"{_list(paths)}: {reason}" for reason, paths in left_out.items()))
    warnings = [f"warning: left out: {_list(paths)}: {reason}" for reason, paths in left_out.items()]
    failed: dict[str, list[Path]] = {}
    for run in runs:
        for text in run.curves.warnings:
            failed.setdefault(text, []).append(run.path)
    warnings += [f"warning: {_list(paths)}: {text}" for text, paths in failed.items()]
    counted: dict[int, list[Path]] = {}
    for run in runs:
        if run.curves.counted:
            counted.setdefault(run.curves.benchmark.evaluations_per_epoch, []).append(run.path)
    warnings += [
        f"{_list(paths)}: the evaluations are only counted; drawn 1/{number} epoch apart, as the rules require"
        for number, paths in counted.items()
    ]
    return runs, warnings


def _list(paths: Sequence[Path]) -> str:
    """Return the first paths and the number of the others."""
    named = ", ".join(map(str, paths[:_MAX_NAMED]))
    others = len(paths) - _MAX_NAMED
    return named if others <= 0 else f"{named} and {counted(others, 'other')}"
