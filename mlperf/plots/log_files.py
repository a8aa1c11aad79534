"""Logs in a folder: result folders and packages of submitters, and folders of this project's results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlperf.reporting.metrics_reader import METRICS_SUFFIX
from mlperf.settings.run import METRICS_FILE
from mlperf.util.errors import RunError

LOG_SUFFIXES = (".txt", ".log", ".out", METRICS_SUFFIX)
# Beginnings of the names of text files of a package and of a checkout that are no logs.
_OTHER_TEXT = ("package_checker_params", "requirements")
_CONSOLE = ".console.txt"  # console output that run_and_time.sh writes beside the compliance log


class NoLogsError(RunError):
    """A folder contains no logs."""


def find_logs(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders that may be logs, in natural order: result_2, result_10.

    Of submission packages, only their `results` are returned. Of several files of the same run, only the one that
    says most is: metrics before console output, which also contains the loss, before the compliance log.
    NoLogsError if there is no file.
    """
    try:
        files = [path for path in folder.rglob("*") if _may_be_log(path)]
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}") from None
    visible = [path for path in files if not any(map(_is_skipped, path.relative_to(folder).parts))]
    visible = [path for path in visible if "results" in path.relative_to(folder).parts] or visible
    both = set(map(compliance_log_of, visible))
    metrics = {path for path in visible if path.suffix == METRICS_SUFFIX}
    found = sorted((p for p in visible if p not in both and not _metrics_of(p) & metrics - {p}), key=_natural)
    if not found:
        raise NoLogsError(
            f"{folder}: the folder contains no logs ({', '.join('*' + suffix for suffix in LOG_SUFFIXES)})"
        )
    return found


def _is_skipped(part: str) -> bool:
    """Return whether a folder or file of this name is left out: hidden ones, and the logs that wandb keeps."""
    return part.startswith(".") or part == "wandb"


def logs_beside_results(folder: Path, found: Sequence[Path]) -> list[Path]:
    """Return files in a folder that may be logs but were not found, because there is a subfolder `results`."""
    if any(path.parent == folder for path in found):
        return []
    return sorted((path for path in folder.iterdir() if _may_be_log(path) and path.name[0] != "."), key=_natural)


def compliance_log_of(path: Path) -> Path | None:
    """Return the compliance log of the same run as console output, which may be missing; None for another file."""
    return path.with_name(path.name.removesuffix(_CONSOLE) + ".log") if _is_console(path) else None


def log_name(path: Path) -> str:
    """Return the name of a log without its suffix; that of the folder of a run for the metrics in it."""
    if path.name == METRICS_FILE.name and path.parent.name not in ("", ".."):
        return path.parent.name
    return path.name.removesuffix(_CONSOLE) if _is_console(path) else path.stem


def _metrics_of(path: Path) -> set[Path]:
    """Return the names that the metrics of the run of a log may have."""
    return {path.with_name(METRICS_FILE.name), path.with_name(log_name(path) + METRICS_SUFFIX)}


def _may_be_log(path: Path) -> bool:
    return path.suffix in LOG_SUFFIXES and path.is_file() and not path.name.startswith(_OTHER_TEXT)


def _is_console(path: Path) -> bool:
    return path.name.endswith(_CONSOLE)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key in which digits count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]
