"""Where the logs of a result stand, alone or in a package, and a copy of them in the official layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlperf.compliance.log import Log
from mlperf.compliance.official import BENCHMARK
from mlperf.submission.system_description import empty_description
from mlperf.util.errors import RunError

PARAMETERS = "package_checker_params"  # the package checker's switches, a line each, beside the results


@dataclass(frozen=True)
class Result:
    """The logs of one system. `package` is the folder with results/ and systems/ if `in_package`."""

    folder: Path
    logs: tuple[Path, ...]
    system: str
    package: Path
    in_package: bool
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> Path:
        """The system description."""
        return self.package / "systems" / f"{self.system}.json"

    @property
    def parameters(self) -> tuple[Path, ...]:
        """The files with switches of the package checker: the system's and the benchmark's, where they are."""
        files = (self.folder.parent / PARAMETERS, self.folder / PARAMETERS) if self.in_package else ()
        return tuple(file for file in files if file.is_file())

    def switch(self, name: str) -> str | None:
        """Return where the package sets a switch of the package checker, with its reason; None if nowhere.

        The reason is what reason_file beside it says. The checker reads whole lines, a newline included: only
        a last line without one counts.
        """
        for file in self.parameters:
            if file.read_text(encoding="utf-8", errors="replace").split("\n")[-1] == name:
                reason = reason_file(file)
                why = reason.read_text(encoding="utf-8", errors="replace").strip() if reason.is_file() else ""
                return f"{name} in {file}: {why or 'no reason is given'}"
        return None

    def division(self, logs: Sequence[Log]) -> str:
        """Return the division: of the system description, or what the logs say."""
        if self.in_package and self.description.is_file():
            try:
                content = json.loads(self.description.read_text(encoding="utf-8"))
                return str(content["division"])
            except (ValueError, KeyError, TypeError, RecursionError):
                pass  # the checker of descriptions will say so
        return next((str(value) for log in logs if (value := log.value("submission_division"))), "closed")


def reason_file(parameters: Path) -> Path:
    """Return where the reason for a package checker's switch is written."""
    return parameters.with_name(f"{PARAMETERS}_reason.txt")


def find_results(path: Path) -> list[Result]:
    """Return the results in a package, a folder of packages, or a folder of results. RunError if there is none."""
    if not path.is_dir():
        raise RunError(f"{path}: {'neither a file nor a folder' if path.exists() else 'no such file or folder'}")
    packages = [folder for folder in (path, *_folders(path)) if (folder / "results").is_dir()]
    if packages:
        found = [result for package in packages for result in _in_package(package)]
        without = [str(package) for package in packages if package not in {result.package for result in found}]
        if found and without:
            note = f"left out, without results/<system>/{BENCHMARK}: {', '.join(without)}"
            found[0] = replace(found[0], notes=(*found[0].notes, note))
    else:
        nearby = (path, path / BENCHMARK, *(folder / BENCHMARK for folder in _folders(path)))
        found = [result for folder in nearby if _logs(folder) for result in _at(folder)]
    if not found:
        raise RunError(
            f"{path}: holds neither result_0.txt, ... nor results/<system>/{BENCHMARK}/result_0.txt, ..."
        )
    return found


def _package_around(path: Path) -> Path | None:
    """Return the package of which a folder is results/<system>/dlrm, None if it is of none."""
    results = path.parent.parent
    inside = path.name == BENCHMARK and results.name == "results" and (results.parent / "systems").is_dir()
    return results.parent if inside else None


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir())


def _logs(folder: Path) -> tuple[Path, ...]:
    """Return the logs of a folder: result_*.txt, or, with none, *.log as run_and_time.sh leaves them."""
    return tuple(sorted(folder.glob("result_*.txt")) or sorted(folder.glob("*.log")))


def _in_package(package: Path) -> Iterator[Result]:
    code = package / "benchmarks" / BENCHMARK / "implementations"
    no_code = f"{package}: without the code, benchmarks/{BENCHMARK}/implementations"
    notes = () if any(file.is_file() for file in code.rglob("*")) else (no_code,)
    left_out = _left_out(package)
    for system in _folders(package / "results"):
        folder = system / BENCHMARK
        if folder.is_dir():
            logs = tuple(sorted(folder.glob("result_*.txt")))
            yield Result(folder, logs, system.name, package, True, (*notes, *left_out))
            left_out = ()  # once is enough


def _left_out(package: Path) -> tuple[str, ...]:
    """Return a note on what the official check of a whole package reads and this one, of dlrm only, does not."""
    folders = [folder for system in _folders(package / "results") for folder in _folders(system)]
    judged = {folder.parent.name for folder in folders if folder.name == BENCHMARK}
    others = [folder for folder in folders if folder.name != BENCHMARK]
    others += [file for file in sorted((package / "systems").glob("*.json")) if file.stem not in judged]
    names = ", ".join(str(path.relative_to(package)) for path in others)
    return (f"{package}: left out, of other benchmarks or systems: {names}",) if others else ()


def _at(folder: Path) -> list[Result]:
    """Return the result whose logs stand in a folder: that of the package around it, or one without a package."""
    for there in (Path(os.path.abspath(folder)), folder.resolve()):  # first as it is named, links and all
        around = _package_around(there)
        if around is not None:
            return [result for result in _in_package(around) if result.folder == there]
    return [Result(folder, _logs(folder), "unnamed", folder, False)]


def lay_out(result: Result, logs: Sequence[Log], scratch: Path) -> tuple[Path, Path]:
    """Copy a result into the official layout under `scratch`; return the package and the folder of its logs.

    Only this result is in it; log K becomes result_K.txt. Where there is no package an empty description stands
    for the system's.
    """
    package = scratch / "package"
    folder = package / "results" / result.system / BENCHMARK
    systems = package / "systems"
    folder.mkdir(parents=True)
    systems.mkdir()
    for number, log in enumerate(logs):
        shutil.copyfile(log.path, folder / f"result_{number}.txt")
    for file in result.parameters:
        shutil.copyfile(file, folder.parent / PARAMETERS if file.parent != result.folder else folder / PARAMETERS)
    description = systems / f"{result.system}.json"
    if not result.in_package:
        content = empty_description(result.system, result.division(logs))
        description.write_text(json.dumps(content), encoding="utf-8")
    elif result.description.is_file():
        shutil.copyfile(result.description, description)
    return package, folder
