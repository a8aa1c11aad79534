"""Run the benchmark several times, each with its own seed. An interrupted set of runs can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from mlperf.compliance.log_reader import Log, read_log
from mlperf.settings.dataset import MAX_SEED
from mlperf.training.outcome import Outcome
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import continued_by
from mlperf.util.files import write_atomically
from mlperf.util.locking import exclusive
from mlperf.util.signals import deferred, delivered

ROOT = Path(__file__).resolve().parents[2]
_CONFIGURATION = re.compile(r"^seed \d+, configuration (.*), page cache dropped: ")
# Outcomes of runs that count. Interrupted and failed runs are repeated.
_FINISHED = {Outcome.SUCCESS.value, Outcome.TARGET_MISSED.value, Outcome.DIVERGED.value}


@dataclass(frozen=True)
class RunSettings:
    """Settings shared by all runs of a set.

    benchmark, edition: BENCHMARK and EDITION for run_and_time.sh. data, configuration: DATADIR and CONFIG, "" if
    not set.
    configuration_hash: SHA-256 of the configuration file, which may change under the same name.
    processes: NPROC, the number of processes of a run.
    """

    benchmark: str
    edition: str
    data: str
    configuration: str
    configuration_hash: str
    trainer_flags: tuple[str, ...]
    processes: int = 1


@dataclass(frozen=True)
class RunSet:
    """The finished runs: one log per seed, and their configuration file."""

    logs: tuple[Path, ...]
    seeds: tuple[int, ...]
    configuration: Path


def make_runs(
    folder: Path,
    settings: RunSettings,
    count: int,
    *,
    first_seed: int | None = None,
    before_run: Callable[[], None] = lambda: None,
) -> RunSet:
    """Run the benchmark until there are `count` finished runs, with logs in `folder`/run_0, run_1, ...

    before_run: called before each run that is made.
    Seeds are drawn from the system's entropy, or count up from `first_seed`. UsageError if the folder has runs
    with other settings. RunError if a run fails, or if another process is making runs in the folder. Calling the
    function again resumes the set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        exclusive(folder / "set.lock", "another process is making runs in this folder"),
        continued_by("the same command repeats the interrupted run and makes the missing ones"),
    ):
        return _make_runs(folder, settings, count, first_seed, before_run)


def _make_runs(
    folder: Path, settings: RunSettings, count: int, first_seed: int | None, before_run: Callable[[], None]
) -> RunSet:
    seeds = _plan(folder, settings, count, first_seed)
    logs: list[Path] = []
    for number, seed in enumerate(seeds):
        run_folder = folder / f"run_{number}"
        log = finished_log(run_folder)
        if log is None:
            before_run()
            print(f"run {number + 1} of {count}, seed {seed}", flush=True)
            _run(run_folder, settings, seed)
            log = finished_log(run_folder)
        else:
            print(f"run {number + 1} of {count}, seed {seed}: done before, {log.path}", flush=True)
        if log is None:
            raise RunError(
                f"{run_folder}: run {number + 1} of {count} did not finish; repeat the command to continue"
            )
        logs.append(log.path)
    return RunSet(tuple(logs), tuple(seeds), _configuration(folder / "run_0"))


def _plan(folder: Path, settings: RunSettings, count: int, first_seed: int | None) -> list[int]:
    """Return the seeds and store them in set.json. UsageError if there are runs with other settings."""
    file = folder / "set.json"
    wanted: dict[str, Any] = json.loads(json.dumps({**asdict(settings), "runs": count, "code": _fingerprint()}))
    if first_seed is not None and first_seed + count - 1 > MAX_SEED:
        raise UsageError(f"--seed={first_seed}: the last of {count} seeds exceeds {MAX_SEED}")
    if file.is_file():
        kept, seeds = _kept_plan(file, count)
        difference = _difference(file, kept, wanted, seeds, first_seed)
        if difference is None:
            return seeds
        if any(finished_log(run_folder) for run_folder in folder.glob("run_*")):
            raise UsageError(f"{difference}; remove {folder} or name another --output")
        # No run is finished, so nothing is lost by starting over.
    draw = random.SystemRandom()
    drawn = draw.sample(range(MAX_SEED + 1), count)
    seeds = drawn if first_seed is None else [first_seed + n for n in range(count)]
    write_atomically(file, json.dumps({**wanted, "seeds": seeds}, indent=1) + "\n")
    return seeds


def _difference(
    file: Path, kept: dict[str, Any], wanted: dict[str, Any], seeds: list[int], first_seed: int | None
) -> str | None:
    """Return how the stored settings differ from the current ones, or None."""
    for name, value in wanted.items():
        if kept.get(name) != value:
            return f"{file}: its runs were made with {name} {kept.get(name)!r}, now it is {value!r}"
    if first_seed not in (None, seeds[0]):
        return f"--seed={first_seed}: the runs in {file.parent} have the seeds {', '.join(map(str, seeds))}"
    return None


def _kept_plan(file: Path, count: int) -> tuple[dict[str, Any], list[int]]:
    """Read settings and seeds from set.json. UsageError if they cannot be read."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        seeds = [int(seed) for seed in kept.pop("seeds")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"{file}: damaged; remove {file.parent} or name another --output") from None
    if kept.get("runs") == count != len(seeds):
        raise UsageError(f"{file}: has {len(seeds)} seeds instead of {count}; remove {file.parent}")
    return kept, seeds


def _fingerprint() -> str:
    """Return a hash of the sources, because all runs of a result must use the same version."""
    digest = hashlib.sha256()
    files = [ROOT / "dlrm_s_pytorch.py", ROOT / "run_and_time.sh"]
    for file in sorted([*files, *(ROOT / "mlperf").rglob("*.py"), *(ROOT / "mlperf").rglob("*.sh")]):
        digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()


def finished_log(folder: Path) -> Log | None:
    """Return the log of the finished run in a folder, or None."""
    for path in sorted(folder.glob("*.log")):
        log = read_log(path)
        outcomes = [event.metadata.get("outcome") for event in log.all("run_stop")]
        if outcomes and outcomes[-1] in _FINISHED:
            return log
    return None


def _run(folder: Path, settings: RunSettings, seed: int) -> None:
    """Run the benchmark once. Its output is printed and saved in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {"BENCHMARK": settings.benchmark, "EDITION": settings.edition}
    variables |= {"SEED": str(seed), "LOGDIR": str(folder.resolve()), "NPROC": str(settings.processes)}
    if settings.data:
        variables["DATADIR"] = settings.data
    if settings.configuration:
        variables["CONFIG"] = settings.configuration
    with deferred():  # no signal arrives between the start of the script and the care for its end
        process = subprocess.Popen(
            [str(ROOT / "run_and_time.sh"), *settings.trainer_flags],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            with delivered():
                _keep_output(process, folder / "run_and_time.txt")
        except BaseException:
            process.terminate()  # the trainer closes its log before it exits
            process.communicate()  # reads what it still prints, for which it would wait
            raise
    if process.returncode == UsageError.exit_status:
        raise UsageError("run_and_time.sh rejected its arguments (see above)")


def _keep_output(process: subprocess.Popen[str], path: Path) -> None:
    """Print the output of a process, write it to a file and wait for the end of the process."""
    assert process.stdout is not None
    with _console_output(path) as kept:
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.write(line)
    process.wait()


def _console_output(path: Path) -> TextIO:
    """Open a file for writing, in place of that of an interrupted run. RunError if it is a link."""
    if path.is_symlink():
        raise RunError(f"{path}: is a link, which is not followed; remove it")
    try:
        path.unlink(missing_ok=True)
        return path.open("x", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def _configuration(folder: Path) -> Path:
    """Return the configuration file named in the output of a run. RunError if there is none."""
    file = folder / "run_and_time.txt"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    names = [match[1] for line in lines if (match := _CONFIGURATION.match(line))]
    if not names:
        raise RunError(f"{file}: does not name the configuration of the run; remove {folder} to repeat the run")
    return ROOT / names[-1]
