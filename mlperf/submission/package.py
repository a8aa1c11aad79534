"""Write a submission package: results, system description, code, and the steps that reproduce the results."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mlperf.benchmarks import BENCHMARKS, Edition
from mlperf.compliance.log_reader import Log, describe_evaluation, read_log
from mlperf.submission.processes import LoggedProcesses
from mlperf.submission.results import PARAMETERS, RCP_BYPASS, SEED_BYPASS, reason_file
from mlperf.submission.run_set import ROOT
from mlperf.submission.system_description import Description
from mlperf.util.errors import RunError
from mlperf.util.files import read_regular
from mlperf.util.locking import exclusive
from mlperf.util.temporary import new_temporary_folder

_CODE = (
    *("dlrm_s_pytorch.py", "run_and_time.sh", "mlperf", "bench", "tools", "test", "LICENSE", "pyproject.toml"),
    *("requirements.txt", "requirements-test.txt", "requirements-distributed.txt"),
    "requirements-distributed-gpu.txt",
)
IMPLEMENTATION = "pytorch"
# Submissions are git repositories, and their checker rejects names with spaces or a leading dot.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Package:
    """The contents of a package.

    configuration: configuration file of the runs; None if it is unknown.
    data: text for the README about the origin of the data.
    bypass_reason: reason for bypassing the convergence check; None if it is not bypassed.
    seed_bypass_reason: reason for bypassing the seed check; None if it is not bypassed.
    """

    folder: Path
    submitter: str
    system: str
    edition: Edition
    description: Description
    configuration: Path | None
    trainer_flags: tuple[str, ...]
    data: str
    bypass_reason: str | None
    seed_bypass_reason: str | None = None

    @property
    def benchmark(self) -> str:
        """The name of the benchmark in folder names."""
        return self.edition.benchmark.name


def write_package(package: Package, logs: Sequence[Log]) -> Path:
    """Write the package under a temporary name, then replace an older one; return its folder.

    RunError if it cannot be written. Other systems and benchmarks in an existing package are kept.
    """
    target = package.folder / package.submitter
    replaced = package.folder / f".{package.submitter}.old"
    with ExitStack() as stack:
        try:
            package.folder.mkdir(parents=True, exist_ok=True)
            lock = package.folder / f".{package.submitter}.lock"
            stack.enter_context(exclusive(lock, "another process is writing this package"))
            scratch = stack.enter_context(new_temporary_folder(target))
            _require_package(replaced)
            if replaced.exists() and not target.exists():
                replaced.replace(target)  # an earlier call was stopped between the two renames below
            _require_package(target)
            _write_results(package, logs, scratch)
            _write_json(scratch / "systems" / f"{package.system}.json", package.description)
            _write_implementation(package, logs, scratch / "benchmarks" / package.benchmark / "implementations")
            if target.exists():
                _copy_the_rest(package, target, scratch)
                shutil.rmtree(replaced, ignore_errors=True)
                target.replace(replaced)
            scratch.replace(target)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise RunError(f"{target}: cannot be written: {error.strerror or error} ({error.filename})") from None
    return target


def _require_package(folder: Path) -> None:
    """Raise RunError if there is something else than a package, or an empty folder, which would be replaced."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"{folder}: is not a folder; move it, or name another --output")
    names = {path.name for path in folder.iterdir()}
    if names and "results" not in names:
        raise RunError(f"{folder}: is not a submission package; move it, or name another --output")


def _write_results(package: Package, logs: Sequence[Log], scratch: Path) -> None:
    system = scratch / "results" / package.system
    folder = system / package.benchmark
    folder.mkdir(parents=True)
    for number, log in enumerate(logs):
        _copy_log(log, folder / f"result_{number}.txt")
    _write_option(folder, SEED_BYPASS, package.seed_bypass_reason)
    _write_option(scratch / _rcp_bypass_folder(package), RCP_BYPASS, package.bypass_reason)


def _rcp_bypass_folder(package: Package) -> Path:
    """Return the folder with the option that bypasses the convergence check.

    The checker finds one option per file. If the folder of the benchmark has that of the seed check, this one is
    in the folder of the system, where it counts for all its benchmarks.
    """
    system = Path("results") / package.system
    return system / package.benchmark if package.seed_bypass_reason is None else system


def _copy_log(log: Log, target: Path) -> None:
    """Copy a log. RunError if it has changed since it was read, because the README describes what was read."""
    target.write_bytes(read_regular(log.path))
    if repr(replace(read_log(target), path=log.path)) != repr(log):  # repr: a NaN is not equal to itself
        raise RunError(f"{log.path}: changed while the package was written; repeat the command")


def _write_option(folder: Path, option: str, reason: str | None) -> None:
    """Set an option of the package checker for the results in a folder, if there is a reason for it."""
    if reason is not None:
        # Without a newline, because the checker compares it with whole lines including their newlines.
        (folder / PARAMETERS).write_text(option, encoding="utf-8")
        reason_file(folder / PARAMETERS).write_text(reason + "\n", encoding="utf-8")


def _copy_the_rest(package: Package, old: Path, new: Path) -> None:
    """Copy an older package without the results and the code that the new package replaces."""
    system = Path("results") / package.system
    implementation = Path("benchmarks") / package.benchmark / "implementations" / IMPLEMENTATION
    renewed = {system / package.benchmark, implementation}
    if not any((old / system / name).is_dir() for name in BENCHMARKS if name != package.benchmark):
        renewed |= {system / PARAMETERS, reason_file(system / PARAMETERS)}

    def leave_out(folder: str, names: list[str]) -> list[str]:
        here = Path(folder).relative_to(old)
        return [name for name in names if here / name in renewed or _is_file(new / here / name)]

    shutil.copytree(old, new, symlinks=True, ignore=leave_out, dirs_exist_ok=True)
    for file in sorted((old / implementation).glob("config_*.sh")):
        if not (new / implementation / file.name).exists():
            shutil.copyfile(file, new / implementation / file.name)


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _write_json(file: Path, content: Description) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _write_implementation(package: Package, logs: Sequence[Log], folder: Path) -> None:
    target = folder / IMPLEMENTATION
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "*.egg-info")
    for name in _CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        elif source.is_file():
            shutil.copy2(source, target / name)
    (target / "input").mkdir()
    for source in [*(ROOT / "input").glob("dist_emb_*.log"), *(ROOT / "input").glob("trace.log")]:
        shutil.copyfile(source, target / "input" / source.name)
    shutil.copyfile(ROOT / "README.md", target / "README_project.md")
    if package.configuration is not None:
        configuration = package.configuration.read_text(encoding="utf-8")
        (target / f"config_{package.system}.sh").write_text(configuration, encoding="utf-8")
    (target / "README.md").write_text(_readme(package, logs), encoding="utf-8")


def _readme(package: Package, logs: Sequence[Log]) -> str:
    """Return the README with the steps that reproduce these results."""
    configured = f" CONFIG=config_{package.system}.sh" if package.configuration is not None else ""
    flags = "".join(f" {shlex.quote(flag)}" for flag in package.trainer_flags)
    edition = f"BENCHMARK={package.benchmark} EDITION={package.edition.name}"
    processes = LoggedProcesses.of(logs)
    command = f"{processes.variables}{edition}{configured} DATADIR=$DATA SEED=$SEED ./run_and_time.sh{flags}"
    rows = [f"| result_{number}.txt | {log.value('seed')} | {_ending(log)} |" for number, log in enumerate(logs)]
    bypass = package.bypass_reason
    parts = [
        f"# {package.benchmark} on {package.system}, by {package.submitter}",
        f"MLPerf Training {package.edition.name}, benchmark `{package.benchmark}`. The program is described in "
        "`README_project.md`.",
        "## Data",
        package.data,
        "## Runs",
        f"```\n{command}\n```",
        "The command sets up a Python environment on first use, prepares the data if necessary, drops the page "
        "cache if permitted, trains to the target and checks the log. "
        + ("It is started on each node. " if processes.nodes > 1 else "")
        + "Each run has its own seed:",
        "\n".join(["| log | SEED | ended |", "|---|---|---|", *rows]),
        f"Runs that miss the target are kept. The rules allow one of {package.edition.runs} and count it as the "
        "slowest.",
        "## Check",
        "```\n$(tools/setup.sh) tools/check_submission.py ../../../..\n```",
    ]
    if bypass is not None:
        parts += [
            "## Convergence check bypassed",
            f"`{_rcp_bypass_folder(package) / PARAMETERS}` bypasses it: {bypass}",
        ]
    if package.seed_bypass_reason is not None:
        file = f"results/{package.system}/{package.benchmark}/{PARAMETERS}"
        parts += ["## Seed check bypassed", f"`{file}` bypasses it: {package.seed_bypass_reason}"]
    return "\n\n".join(parts) + "\n"


def _ending(log: Log) -> str:
    return f"{log.status}, {'no AUC' if log.best is None else describe_evaluation(log.best)}"
