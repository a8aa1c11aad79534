"""Labels of runs: the names of their files, or of the systems named in the logs if there are several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mlperf.plots.curves import Curves
from mlperf.plots.log_files import log_name
from mlperf.plots.read_runs import Run
from mlperf.util.errors import UsageError
from mlperf.util.plural import counted

# Values that logs contain where nobody entered the name of a submitter or of a system.
_UNNAMED = ("", "unknown", "reference", "reference_implementation")
_PLACEHOLDER = "PLACEHOLDER"


def labels_of(runs: Sequence[Run], requested: str | None, arguments: int) -> list[str]:
    """Return the label of each run.

    requested: value of --labels, those of the arguments or of the runs, separated by commas; None: from the logs.
    arguments: number of logs and folders that were named.

    UsageError if there is another number of labels.
    """
    if requested is None:
        return legend_labels([(run.path, run.curves) for run in runs])
    labels = requested.split(",")
    if len(labels) == arguments:
        return [labels[run.argument] for run in runs]
    if len(labels) == len(runs):
        return labels
    raise UsageError(f"--labels={requested}: {counted(len(labels), 'label')} for {counted(len(runs), 'run')}")


def legend_labels(runs: Sequence[tuple[Path, Curves]]) -> list[str]:
    """Return a label for each run. Runs of the same system have the same label if there are several systems.

    A system is a folder of logs whose submitter and system are named in the logs or, as in the packages of
    submitters, in the path (SUBMITTER/results/SYSTEM/BENCHMARK/). Other runs are labelled with their files.
    """
    systems = [_system(path, run) for path, run in runs]
    keys = [
        (path.resolve().parent, system) if system else (path.resolve(), "")
        for (path, _), system in zip(runs, systems, strict=True)
    ]
    if len(set(keys)) == 1 or not any(systems):
        return _distinct([log_name(path) for path, _ in runs], [path.resolve() for path, _ in runs])
    firsts = {key: number for number, key in reversed(list(enumerate(keys)))}
    order = sorted(set(keys), key=lambda key: firsts[key])
    names = _distinct(
        [systems[firsts[key]] or log_name(runs[firsts[key]][0]) for key in order],
        [runs[firsts[key]][0].resolve() for key in order],
    )
    of_key = dict(zip(order, names, strict=True))
    return [of_key[key] for key in keys]


def _system(path: Path, run: Curves) -> str:
    """Return submitter and system of a run, "" if neither the log nor its path names them."""
    if _is_named(run.submitter) and _is_named(run.system):
        submitter, system = run.submitter, run.system
    else:
        submitter, system = _from_path(path.resolve())
        system = system or (run.system if _is_named(run.system) else "")
    return system if not submitter or submitter.lower() in system.lower() else f"{submitter}, {system}"


def _from_path(path: Path) -> tuple[str, str]:
    """Return submitter and system of a log in a package, empty if the path is not that of a package."""
    parts = path.parts
    for depth in (4, 3):  # the folder of the benchmark may be missing
        if len(parts) > depth and parts[-depth] == "results":
            return parts[-depth - 1], parts[-depth + 1]
    return "", ""


def _is_named(name: str) -> bool:
    return name.lower() not in _UNNAMED and _PLACEHOLDER not in name


def _distinct(labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Append to equal labels a folder, the suffix or a number in which they differ."""
    result = list(labels)
    for label, count in Counter(labels).items():
        if count > 1:
            same = [number for number, each in enumerate(labels) if each == label]
            for number, ending in zip(same, _differences([paths[number] for number in same]), strict=True):
                result[number] = f"{label} ({ending})"
    return result


def _differences(paths: Sequence[Path]) -> list[str]:
    """Return what distinguishes each path: its shortest folder that no other has, all that differ, or a number."""
    depth = min(len(path.parts) for path in paths)
    columns = [[path.parts[-level] for path in paths] for level in range(depth, 0, -1)]
    differing = [column for column in columns if len(set(column)) > 1]
    endings = []
    for number in range(len(paths)):
        unique = [column[number] for column in differing if column.count(column[number]) == 1]
        folders = [column[number] for column in differing if column is not columns[-1]]
        endings.append(min(unique[:-1] or unique, key=len, default="/".join(folders)))
    return endings if len(set(endings)) == len(paths) else [str(number) for number in range(1, len(paths) + 1)]
