"""Damaged compliance logs: the check never calls one a success that does not show a whole, converged run.

What a log shows is read here by a few lines that share nothing with the check.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from foreign_logs import foreign_entries, write_log

from hostile.damage import EVERY_FORMAT, Damage
from hostile.oracle import Outcome, memory_failure, program_failure
from hostile.pool import IDENTICAL, PASSED, REFUSED, Case, Failed, Server

_TOKEN = ":::MLLOG "
_TARGET = 0.8025
_SECONDS = 15.0
_COURSE = ("run_start", "epoch_start", "eval_start", "eval_accuracy", "eval_stop", "epoch_stop", "run_stop")
_NEEDED = ("submission_benchmark", "submission_division", "global_batch_size", "eval_samples", "train_samples")

Event = dict[str, Any]
Change = Callable[[list[Event], random.Random], None]


def cases(count: int, seed: int, folder: Path, server: Server) -> Iterator[Case]:
    """Yield `count` cases: damaged bytes, wrong events, and things that are no logs, in turn."""
    log = folder / "run.log"
    write_log(log, sorted(foreign_entries(1, edition="2.0.0"), key=lambda entry: entry[-1]))
    expected = _check(log, server)
    assert expected.status == 0, expected.stdout + expected.stderr
    assert _shows_success(log.read_text())
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        kind = number % 4
        if kind < 2:
            damage = draw.choice(EVERY_FORMAT)
            run: Callable[[Server, Path], str] = partial(_attack_bytes, log, damage, draw, expected)
            name = damage.__name__.replace("_", " ")
        elif kind == 2:
            name = draw.choice(list(_CHANGES))
            run = partial(_attack_events, log, _CHANGES[name], draw, expected)
        else:
            name = draw.choice(list(_NO_LOGS))
            run = partial(_attack_with, _NO_LOGS[name], expected)
        yield Case("damaged log", f"{number}: {name}", run)


def _check(log: Path, server: Server) -> Outcome:
    flags = ["--edition=2.0.0", log.name]
    server.start("program", log.parent, program="tools/check_submission.py", flags=flags)
    return server.wait(_SECONDS)


def _attack_bytes(
    log: Path, damage: Damage, draw: random.Random, expected: Outcome, server: Server, folder: Path
) -> str:
    content = log.read_bytes()
    damaged = damage(content, bytes(reversed(content)), draw)
    return _attack_with(lambda path: path.write_bytes(damaged), expected, server, folder)


def _attack_events(
    log: Path, change: Change, draw: random.Random, expected: Outcome, server: Server, folder: Path
) -> str:
    events = _events(log.read_text())
    change(events, draw)
    lines = [_TOKEN + json.dumps(event) for event in events]
    return _attack_with(lambda path: path.write_text("\n".join(lines) + "\n"), expected, server, folder)


def _attack_with(write: Callable[[Path], object], expected: Outcome, server: Server, folder: Path) -> str:
    log = folder / "run.log"
    write(log)
    outcome = _check(log, server)
    failure = program_failure(outcome, verifies=True) or memory_failure(outcome, expected.peak_bytes)
    if failure:
        raise Failed(failure)
    if outcome.status:
        # A line may quote a value that contains the word.
        if any(line.rstrip().endswith("SUCCESS") for line in outcome.stdout.splitlines()):
            raise Failed(f"status {outcome.status}, but SUCCESS is printed")
        return REFUSED
    if not log.is_file() or not _shows_success(log.read_text(errors="replace")):
        raise Failed("SUCCESS for a log that does not show a whole, converged run")
    return IDENTICAL if outcome.stdout == expected.stdout else PASSED


def _events(text: str) -> list[Event]:
    """Return the events of a log that can be read."""
    events = []
    for line in text.splitlines():
        _, token, rest = line.partition(_TOKEN)
        try:
            event = json.loads(rest) if token else None
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _shows_success(text: str) -> bool:
    """Whether a log has one run that starts, reaches the target and stops with success, in this order of times."""
    events = _events(text)
    keys = [event.get("key") for event in events]
    times: list[Any] = [event.get("time_ms") for event in events]
    if not all(type(time) is int and time >= 0 for time in times):
        return False
    # Other events state settings and results; programs log them in any order.
    course = [time for key, time in zip(keys, times, strict=True) if key in _COURSE]
    if course != sorted(course):
        return False
    if any(keys.count(key) < 1 for key in _NEEDED) or keys.count("run_start") != 1 or keys.count("run_stop") != 1:
        return False
    start, stop = keys.index("run_start"), keys.index("run_stop")
    metadata = events[stop].get("metadata")
    best = [event.get("value") for event in events[start:] if event.get("key") == "eval_accuracy"]
    reached = any(isinstance(value, float) and value >= _TARGET for value in best)
    is_success = isinstance(metadata, dict) and metadata.get("status") == "success"
    return start < stop and reached and is_success and times[start] < times[stop]


def _drawn(events: list[Event], draw: random.Random, *keys: str) -> Event:
    """Return an event with one of these keys, or any."""
    return draw.choice([event for event in events if not keys or event["key"] in keys])


def _removed(*keys: str) -> Change:
    return lambda events, draw: events.remove(_drawn(events, draw, *keys))


def _repeated(*keys: str) -> Change:
    def change(events: list[Event], draw: random.Random) -> None:
        event = _drawn(events, draw, *keys)
        events.insert(draw.randrange(events.index(event), len(events) + 1), event)

    return change


def _with(field: str, value: Any, *keys: str) -> Change:
    def change(events: list[Event], draw: random.Random) -> None:
        event = _drawn(events, draw, *keys)
        event[field] = value

    return change


def _time_moved(shift: int, *keys: str) -> Change:
    def change(events: list[Event], draw: random.Random) -> None:
        _drawn(events, draw, *keys)["time_ms"] += shift

    return change


def _clock_set_back(events: list[Event], draw: random.Random) -> None:
    start = draw.randrange(1, len(events))
    shift = draw.choice([1000, 10**6, 10**12])
    for event in events[start:]:
        event["time_ms"] -= shift


def _stopped_early(events: list[Event], draw: random.Random) -> None:
    del events[draw.randrange(events.index(_drawn(events, draw, "run_stop"))) :]


def _aborted(events: list[Event], draw: random.Random) -> None:
    _drawn(events, draw, "run_stop")["metadata"]["status"] = draw.choice(
        ["aborted", "", "SUCCESS", None, 1, ["success"]]
    )


def _below_the_target(events: list[Event], draw: random.Random) -> None:
    for event in events:
        if event["key"] == "eval_accuracy":
            event["value"] = draw.choice([0.8024, math.nan, "0.81", None, -1, [0.9], True, 80.3])


def _two_runs(events: list[Event], draw: random.Random) -> None:
    events += events


_WRONG = {
    **{"None": None, "text": "x", "negative": -1, "beyond 64 bits": 2**70, "a fraction": 0.5, "NaN": math.nan},
    **{"infinity": math.inf, "a list": [], "a dict": {"a": 1}, "true": True, "escapes": "\x1b]0;owned\x07\x1b[2J"},
    **{"a million characters": "x" * 1_000_000, "lines": "a\nSUCCESS\n", "half a character": "\ud800"},
}
_CHANGES: dict[str, Change] = {
    "an event is missing": _removed(),
    "run_start is missing": _removed("run_start"),
    "run_stop is missing": _removed("run_stop"),
    "an event is repeated": _repeated(),
    "run_stop is repeated": _repeated("run_stop"),
    "run_start is repeated": _repeated("run_start"),
    "ends early": _stopped_early,
    "is aborted": _aborted,
    "is below the target": _below_the_target,
    "two runs": _two_runs,
    "the clock was set back": _clock_set_back,
    "run_stop before run_start": _time_moved(-(10**6), "run_stop"),
    "one event is earlier": _time_moved(-(10**6)),
    "one event is later": _time_moved(10**9),
    "shuffled": lambda events, draw: draw.shuffle(events),
    "no events": lambda events, draw: events.clear(),
    **{
        f"{field} of {key or 'an event'} is {label}": _with(field, value, *filter(None, [key]))
        for field, key in (
            *(("time_ms", ""), ("key", ""), ("value", ""), ("metadata", ""), ("time_ms", "run_start")),
            *(("value", "eval_accuracy"), ("metadata", "run_stop"), ("value", "submission_benchmark")),
            *(("value", "global_batch_size"), ("metadata", "eval_accuracy")),
        )
        for label, value in _WRONG.items()
    },
}


def _line(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def _content(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


_NO_LOGS: dict[str, Callable[[Path], object]] = {
    "empty": _line(""),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/full": lambda path: path.symlink_to("/dev/full"),
    "/proc/self/mem": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "zeros": _content(bytes(1 << 20)),
    "a line of 50 MB": _content(b"x" * (50 << 20)),
    "an event of 100,000 brackets": _line(_TOKEN + "[" * 100_000 + "\n"),
    "an event of 100,000 nested values": _line(_TOKEN + '{"a":' * 100_000 + "\n"),
    "an event with a number of 100,000 digits": _line(f'{_TOKEN}{{"key": "x", "value": {"9" * 100_000}}}\n'),
    "100,000 tokens": _line(_TOKEN * 100_000 + "\n"),
    "100,000 lines": _line(f'{_TOKEN}{{"key": "x", "time_ms": 1, "value": 1, "metadata": {{}}}}\n' * 100_000),
    "UTF-16": _content((_TOKEN + "{}\n").encode("utf-16")),
    "bytes": _content(random.Random(1).randbytes(100_000)),
    "carriage returns": _content((_TOKEN + "{}\r").encode() * 1000),
}
