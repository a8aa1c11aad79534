"""Find the logs of results, alone or in packages, and copy a result into the official layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlperf.benchmarks import BENCHMARKS, Benchmark
from mlperf.compliance.log_reader import Log, read_log
from mlperf.submission.system_description import empty_description
from mlperf.util.errors import RunError

PARAMETERS = "package_checker_params"  # options of the package checker, one per line
RCP_BYPASS, SEED_BYPASS = "rcp-bypass", "seed-checker-bypass"  # two of them
_LAYOUT = f"results/<system>/{'|'.join(BENCHMARKS)}"


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
        """The file with the system description."""
        return self.package / "systems" / f"{self.system}.json"

    @property
    def parameters(self) -> tuple[Path, ...]:
        """The existing files with options of the package checker, for the system and for the benchmark."""
        files = (self.folder.parent / PARAMETERS, self.folder / PARAMETERS) if self.in_package else ()
        return tuple(file for file in files if file.is_file())

    @property
    def package_options(self) -> dict[str, Path]:
        """The options of the package checker that the organization sets for its whole package, and their file."""
        return _package_options(self.package) if self.in_package else {}

    def switch(self, name: str) -> str | None:
        """Return the file that sets an option of the package checker, and the stated reason; None if not set.

        For a system or a benchmark, the package checker compares lines including the newline, so only an
        unterminated last line matches.
        """
        files = [file for file in self.parameters if _text(file).split("\n")[-1] == name]
        files += [file for option, file in self.package_options.items() if option == name]
        if not files:
            return None
        reason = reason_file(files[0])
        why = _text(reason).strip() if reason.is_file() else ""
        return f"{name} in {files[0]}: {why or 'no reason is given'}"

    def described(self) -> dict[str, Any]:
        """Return the fields of the system description; {} if there is none, or it is no JSON object."""
        if not self.in_package or not self.description.is_file():
            return {}
        try:
            content = json.loads(self.description.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def division(self, logs: Sequence[Log]) -> str:
        """Return the division in the system description or, without one, in the logs."""
        described = self.described()
        if "division" in described:
            return str(described["division"])
        return next((str(value) for log in logs if (value := log.value("submission_division"))), "closed")


def benchmark_of(result: Result, logs: Sequence[Log]) -> Benchmark | None:
    """Return the benchmark of a result: in a package that of its folder, otherwise that of its logs.

    Of logs that differ, it is that of most of them. If they name no supported one, the name of the folder decides;
    None if that does not name one either.
    """
    named = [str(log.value("submission_benchmark")) for log in logs]
    supported = [name for name in named if name in BENCHMARKS]
    if supported and not result.in_package:
        return BENCHMARKS[max(supported, key=supported.count)]
    return BENCHMARKS.get(result.folder.name)


def read_benchmark(result: Result) -> Benchmark | None:
    """Return the benchmark of a result as `benchmark_of` does; logs that cannot be read do not count."""
    logs = []
    for path in () if result.in_package else result.logs:
        with suppress(RunError):
            logs.append(read_log(path))
    return benchmark_of(result, logs)


def _package_options(package: Path) -> dict[str, Path]:
    """Read the options of a whole package.

    The official scripts pass each line of the file as a flag. Some editions spell the flags with _ instead of -.
    """
    file = package / PARAMETERS
    lines = _text(file).splitlines() if file.is_file() else []
    return {line.strip().lstrip("-").replace("_", "-"): file for line in lines if line.strip()}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def reason_file(parameters: Path) -> Path:
    """Return the file with the reason for an option of the package checker."""
    return parameters.with_name(f"{PARAMETERS}_reason.txt")


def find_results(path: Path) -> list[Result]:
    """Return the results in a package, a folder of packages, or a folder of results. RunError if there is none."""
    if not path.is_dir():
        raise RunError(f"{path}: {'neither a file nor a folder' if path.exists() else 'no such file or folder'}")
    packages = [folder for folder in (path, *_folders(path)) if (folder / "results").is_dir()]
    if packages:
        found = [result for package in packages for result in _in_package(package)]
        empty = [str(package) for package in packages if package not in {result.package for result in found}]
        if found and empty:
            note = f"left out, without {_LAYOUT}: {', '.join(empty)}"
            found[0] = replace(found[0], notes=(*found[0].notes, note))
    else:
        nearby = (path, *_benchmark_folders(path), *(b for f in _folders(path) for b in _benchmark_folders(f)))
        found = [result for folder in nearby if _logs(folder) for result in _at(folder)]
    if not found:
        raise RunError(f"{path}: holds neither result_0.txt, ... nor {_LAYOUT}/result_0.txt, ...")
    return found


def _package_around(path: Path) -> Path | None:
    """Return the package that has this folder as results/<system>/<benchmark>, or None."""
    results = path.parent.parent
    inside = path.name in BENCHMARKS and results.name == "results" and (results.parent / "systems").is_dir()
    return results.parent if inside else None


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir())


def _benchmark_folders(path: Path) -> list[Path]:
    return [path / name for name in BENCHMARKS]


def _logs(folder: Path) -> tuple[Path, ...]:
    """Return the logs in a folder: result_*.txt or, without any, *.log as written by run_and_time.sh."""
    return tuple(sorted(folder.glob("result_*.txt")) or sorted(folder.glob("*.log")))


def _in_package(package: Path) -> Iterator[Result]:
    once = (*_notes_on_options(package), *_note_on_several(package), *_note_on_others(package))
    for system in _folders(package / "results"):
        for folder in filter(Path.is_dir, _benchmark_folders(system)):
            logs = tuple(sorted(folder.glob("result_*.txt")))
            notes = (*_note_on_power(folder), *_note_on_code(package, folder.name), *once)
            yield Result(folder, logs, system.name, package, True, notes)
            once = ()  # only with the first result of the package


def _note_on_power(folder: Path) -> tuple[str, ...]:
    measured = folder / "power"
    return (f"{measured}: left out, the measured power is not judged",) if measured.is_dir() else ()


def _note_on_several(package: Path) -> tuple[str, ...]:
    """Return a note on a package with results of several benchmarks that no edition includes together."""
    names = [name for name in BENCHMARKS if any(folder.is_dir() for folder in package.glob(f"results/*/{name}"))]
    if len(names) < 2:
        return ()
    return (
        f"{package}: has results of {' and '.join(names)}, which no edition includes together: each is judged by "
        "an edition that includes it; submit them apart, because the official summarizer stops at the other one",
    )


def _note_on_code(package: Path, benchmark: str) -> tuple[str, ...]:
    code = package / "benchmarks" / benchmark / "implementations"
    if _has_files(code):
        return ()
    expected = code.relative_to(package)
    elsewhere = _code_elsewhere(package / "benchmarks", benchmark)
    if not elsewhere:
        return (f"{package}: without the code, {expected}",)
    names = ", ".join(str(path.relative_to(package)) for path in elsewhere)
    return (f"{package}: no code in {expected}, but in {names}",)


def _code_elsewhere(benchmarks: Path, benchmark: str) -> list[Path]:
    """Return the files and the folders with files in benchmarks/ and in benchmarks/<benchmark>."""
    folder = benchmarks / benchmark
    entries = [path for path in sorted(benchmarks.glob("*")) if path != folder] + sorted(folder.glob("*"))
    return [path for path in entries if path.is_file() or _has_files(path)]


def _has_files(folder: Path) -> bool:
    """Return whether there is a file in a folder, its subfolders, or folders that symbolic links point to."""
    links = (path for path in folder.rglob("*") if path.is_symlink() and path.is_dir())
    files = any(path.is_file() for path in folder.rglob("*"))
    return files or any(entry.is_file() for link in links for entry in link.rglob("*"))


def _notes_on_options(package: Path) -> Iterator[str]:
    """Yield a note on each option that the organization sets for its package, or that has no effect."""
    for option, file in _package_options(package).items():
        used = "" if option in (RCP_BYPASS, SEED_BYPASS) else ", not used here"
        yield f"{file}: the organization sets {option}{used}"
    for file in sorted([*package.glob(f"results/*/{PARAMETERS}"), *package.glob(f"results/*/*/{PARAMETERS}")]):
        for line in _text(file).split("\n")[:-1]:
            if line.strip() in (RCP_BYPASS, SEED_BYPASS):
                reason = "the official checker ignores lines that end with a newline"
                yield f"{file}: {line.strip()} has no effect: {reason}"


def _note_on_others(package: Path) -> tuple[str, ...]:
    """Return a note listing results and descriptions in the package that are not checked here."""
    folders = [folder for system in _folders(package / "results") for folder in _folders(system)]
    checked = {folder.parent.name for folder in folders if folder.name in BENCHMARKS}
    others = [folder for folder in folders if folder.name not in BENCHMARKS]
    others += [file for file in sorted((package / "systems").glob("*.json")) if file.stem not in checked]
    names = ", ".join(str(path.relative_to(package)) for path in others)
    return (f"{package}: left out, of other benchmarks or systems: {names}",) if others else ()


def results_around(folder: Path) -> list[Result]:
    """Return the result in a folder that is part of a package, as a list; an empty list for any other folder."""
    for path in (
        Path(os.path.abspath(folder)),
        folder.resolve(),
    ):  # the path may be a symlink inside a package or into one
        around = _package_around(path)
        if around is not None:
            return [result for result in _in_package(around) if result.folder == path]
    return []


def _at(folder: Path) -> list[Result]:
    """Return the result in a folder, as part of the enclosing package if there is one."""
    return results_around(folder) or [Result(folder, _logs(folder), "unnamed", folder, False)]


def copy_into_package(
    result: Result, logs: Sequence[Log], benchmark: Benchmark, scratch: Path
) -> tuple[Path, Path]:
    """Copy a result into a package under `scratch`; return the package and the folder of the logs in it.

    The copy contains only this result, with log K as result_K.txt. A result without a package gets an empty system
    description.
    """
    package = scratch / "package"
    folder = package / "results" / result.system / benchmark.name
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
