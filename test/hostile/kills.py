"""Kills and signals: nothing is lost, nothing half-written is taken for whole, and the next run ends the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import raw_text

from hostile.materials import MODELS, prepared_data, train_flags
from hostile.oracle import Outcome, checkpoint_fingerprint
from hostile.pool import PASSED, Case, Failed, Server

# Every signal that ends a process by default and that a shell, a terminal, a scheduler or a limit sends.
_SIGNALS = (
    *(signal.SIGKILL,) * 6,
    *(signal.SIGTERM, signal.SIGINT) * 2,
    *(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU),
)
_SPIN_SECONDS = 5.0
_MODELS = ("sgd", "rwsadagrad", "adagrad")
_LONG = ("--nepochs=4", "--save-model=m.pt")


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run prints, saves and takes in seconds; `first` is an early checkpoint of it."""

    flags: tuple[str, ...]
    lines: list[str]
    checkpoint: str
    seconds: float
    first: Path


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases: three of four disturb a training run, the others a preparation."""
    data = prepared_data(folder, server)
    runs = {name: _reference(name, folder, data, server) for name in _MODELS}
    raw = folder / "raw"
    raw.mkdir()
    raw_text.write_days(raw, [300, 20, 250, *([40] * 20), 101], seed=11)
    result, seconds = _undisturbed_preparation(raw, folder, server)
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        signals = [draw.choice(_SIGNALS)] if draw.random() < 0.8 else [signal.SIGTERM, draw.choice(_SIGNALS)]
        names = " then ".join(each.name for each in signals)
        if number % 4 == 3:
            run: Callable[[Server, Path], str] = partial(_attack_preparation, raw, result, seconds, signals, draw)
            yield Case("kill or signal, preparation", f"{number}: {names}", run)
        else:
            model = _MODELS[number % 3]
            run = partial(_attack_training, runs[model], signals, draw)
            yield Case("kill or signal, training", f"{number}: {model}, {names}", run)


def _reference(name: str, folder: Path, data: Path, server: Server) -> Reference:
    flags = train_flags(data, *MODELS[name], *_LONG)
    place = folder / f"reference-{name}"
    place.mkdir()
    first = folder / f"first-{name}.pt"
    early = server.program(place, *flags, f"--save-model={first}", "--mlperf-auc-threshold=0.01")
    assert early.status == 0, early.stderr
    started = time.monotonic()
    done = server.program(place, *flags)
    assert done.status == 0, done.stderr
    return Reference(
        flags, done.stdout.splitlines(), checkpoint_fingerprint(place / "m.pt"), time.monotonic() - started, first
    )


def _attack_training(
    run: Reference, signals: list[signal.Signals], draw: random.Random, server: Server, folder: Path
) -> str:
    older = draw.random() < 0.5
    if older:
        shutil.copy(run.first, folder / "m.pt")
    pid = server.start("program", folder, program="dlrm_s_pytorch.py", flags=list(run.flags))
    _wait_for_moment(folder, run.seconds, draw)
    outcome = _disturb(server, pid, signals, draw)
    complete = outcome.stdout.splitlines()[-1:] == run.lines[-1:]
    _check_end(outcome, signals)
    _check_log(folder / "mlperf_dlrm.log", outcome, complete)
    if older and not (folder / "m.pt").exists():
        raise Failed("the checkpoint that was there is lost")
    if complete and checkpoint_fingerprint(folder / "m.pt") != run.checkpoint:
        raise Failed("the run was complete and saved something else")
    _check_next_run(run, server, folder)
    return PASSED


def _check_next_run(run: Reference, server: Server, folder: Path) -> None:
    """Continue from the checkpoint, or start again without one, and compare with the undisturbed run."""
    resumed = (folder / "m.pt").exists()
    done = server.program(folder, *run.flags, *(("--load-model=m.pt",) if resumed else ()))
    if done.status != 0:
        raise Failed(f"the next run fails: {done.error}")
    lines = done.stdout.splitlines()[1:]
    if lines != run.lines[len(run.lines) - len(lines) :] or not (resumed or len(lines) == len(run.lines) - 1):
        raise Failed(f"the {'continued' if resumed else 'next'} run prints other lines")
    if checkpoint_fingerprint(folder / "m.pt") != run.checkpoint:
        raise Failed("the next run ends with another checkpoint")
    known = {"m.pt", "mlperf_dlrm.log", "mlperf_dlrm_2.log"}
    if left := sorted({path.name for path in folder.iterdir()} - known):
        raise Failed(f"left after the next run: {left}")


def _wait_for_moment(folder: Path, seconds: float, draw: random.Random) -> None:
    """Sleep for a part of the time that a run takes, or until shortly after a file begins to be written."""
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, 1.05 * seconds))
        return
    end, wanted = time.monotonic() + min(seconds, _SPIN_SECONDS), draw.choice([".part", ".log", ".pt", ".lock"])
    while time.monotonic() < end and not any(entry.name.endswith(wanted) for entry in os.scandir(folder)):
        pass
    time.sleep(draw.choice([0, draw.uniform(0, 0.003), draw.uniform(0, 0.03)]))


def _disturb(server: Server, pid: int, signals: list[signal.Signals], draw: random.Random) -> Outcome:
    for number in signals:
        try:
            os.kill(pid, number)  # a zombie until the server waits for it: the id is not another process's
        except ProcessLookupError:
            break
        time.sleep(draw.choice([0, draw.uniform(0, 0.01)]))
    return server.wait()


def _check_end(outcome: Outcome, signals: list[signal.Signals]) -> None:
    """Raise Failed unless the process ended by one of the signals, in at most one line, or was complete."""
    allowed = {0, *(-number for number in signals), *(128 + number for number in signals)}
    if outcome.timed_out or outcome.left:
        raise Failed("hangs" if outcome.timed_out else "leaves processes behind")
    if outcome.status not in allowed:
        raise Failed(f"status {outcome.status}: {outcome.error}")
    if outcome.traceback:
        raise Failed(f"traceback: {outcome.traceback}")
    ends = [
        line for line in outcome.stderr.splitlines() if line.startswith(("dlrm_s_pytorch.py:", "prepare_criteo"))
    ]
    if len(ends) > 1:
        raise Failed(f"several lines: {ends}")


def _check_log(path: Path, outcome: Outcome, complete: bool) -> None:
    """Raise Failed unless the log of a run is closed as aborted, or as a success if it was complete.

    After SIGKILL it is open. A run that ended before its first step may have none.
    """
    events = _events(path, whole=outcome.status != -signal.SIGKILL)
    stops = [event["metadata"].get("status") for event in events if event["key"] == "run_stop"]
    if "success" in stops and not complete:
        raise Failed("the log of an incomplete run says success")
    is_closed = len(stops) == 1 and (stops == ["aborted"] or complete)
    is_open = any(event["key"] == "run_start" for event in events) and not is_closed
    if is_open and outcome.status != -signal.SIGKILL:
        raise Failed(f"status {outcome.status}: the log is closed {stops}, not once as aborted")


def _events(path: Path, whole: bool) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    *lines, last = path.read_text().split("\n")
    if whole and last:
        raise Failed(f"the log ends within a line: {last[:80]!r}")
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def _start_preparation(server: Server, raw: Path, folder: Path) -> int:
    return server.start("prepare", folder, raw=str(raw / "day"), processed=str(folder / "x"))


def _undisturbed_preparation(raw: Path, folder: Path, server: Server) -> tuple[dict[str, Any], float]:
    """Return the result of a preparation and the seconds it takes."""
    place = folder / "preparation"
    place.mkdir()
    started = time.monotonic()
    _start_preparation(server, raw, place)
    done = server.wait()
    assert done.status == 0, done.stderr
    return _prepared(place), time.monotonic() - started


def _prepared(folder: Path) -> dict[str, Any]:
    """Return the bytes of all files, and the manifest without what depends on the time."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    manifest = json.loads(files["x.json"])
    del manifest["manifest_crc32"]
    for facts in (*manifest["files"].values(), manifest["ids"]):
        del facts["mtime_ns"]
    return {**files, "x.json": manifest}


def _attack_preparation(
    raw: Path,
    expected: dict[str, Any],
    seconds: float,
    signals: list[signal.Signals],
    draw: random.Random,
    server: Server,
    folder: Path,
) -> str:
    for _ in range(draw.randint(1, 4)):
        pid = _start_preparation(server, raw, folder)
        time.sleep(draw.uniform(0, 1.05 * seconds))
        outcome = _disturb(server, pid, signals, draw)
        _check_end(outcome, signals)
        whole = (folder / "x.json").exists() and not (folder / "x.preparation").exists()
        if whole and _prepared(folder) != expected:
            raise Failed("files that look complete are not")
    _start_preparation(server, raw, folder)
    done = server.wait()
    if done.status != 0:
        raise Failed(f"the next preparation fails: {done.error}")
    if left := sorted({path.name for path in folder.iterdir()} - expected.keys()):
        raise Failed(f"left after the next preparation: {left}")
    if _prepared(folder) != expected:
        raise Failed("the next preparation gives other files")
    return PASSED
