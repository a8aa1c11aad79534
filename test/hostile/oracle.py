"""What is right and what is a failure, without using the code under attack."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

PEAK_BYTES = 1 << 30  # of a case, beyond what a case with an undamaged file needs

_ERROR = re.compile(r"^[\w.]+: error: ", re.MULTILINE)
_CHARACTERS = 2_000  # of a message, which may quote a path or a name
_NOTES = 6  # lines on stderr that may precede an error, such as the choice of the engine
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Outcome:
    """How a process ended. status: exit status, or minus the number of the signal that ended it.

    peak_bytes: highest resident memory. left: whether it left processes behind. result: what the action recorded.
    """

    status: int
    timed_out: bool
    peak_bytes: int
    left: bool
    stdout: str
    stderr: str
    result: dict[str, Any]

    @property
    def error(self) -> str:
        """The last line on stderr, "" without any."""
        return self.stderr.rstrip("\n").rpartition("\n")[2]

    @property
    def traceback(self) -> str:
        """The end of the first traceback on stderr, "" without any."""
        _, _, rest = self.stderr.partition("Traceback (most recent call last):\n")
        lines = rest.splitlines()
        end = next((number for number, line in enumerate(lines) if not line.startswith(" ")), len(lines))
        return " ".join(line.strip() for line in lines[max(0, end - 2) : end + 1])


def fingerprint(value: object) -> str:
    """Return a digest of a value: types, order, shapes and every bit of its tensors and numbers."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(struct.pack("<q", len(part)) + part)
    return digest.hexdigest()


def checkpoint_fingerprint(path: Path) -> str:
    """Return the fingerprint of the contents of a checkpoint, read by PyTorch."""
    return fingerprint(torch.load(path, weights_only=False))


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        whole = value.detach().contiguous()
        yield f"tensor {whole.dtype} {tuple(whole.shape)}".encode()
        yield whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for key, item in value.items():
            yield from _parts(key)
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, float | np.floating):
        yield b"float " + struct.pack("<d", value)
    elif isinstance(value, np.generic):
        yield from _parts(value.item())
    elif value is None or isinstance(value, bool | int | str):
        yield f"{type(value).__name__} {value!r}".encode()
    else:
        yield from _parts(vars(value))


def program_failure(outcome: Outcome, statuses: tuple[int, ...] = (1, 2), *, verifies: bool = False) -> str | None:
    """Return what is wrong with the end of a program that was given something hostile, None if nothing is.

    It must end with status 0, or with one of `statuses` and one line that says why. verifies: a program that lists
    what is wrong, in any number of lines.
    """
    errors, lines = len(_ERROR.findall(outcome.stderr)), outcome.stderr.splitlines()
    is_one_line = errors == 1 and _ERROR.match(outcome.error) and len(lines) <= 1 + _NOTES
    lists_problems = verifies and errors == 0 and outcome.status == 1
    found = _CONTROL.search(outcome.stdout + outcome.stderr)
    failures = (
        (outcome.timed_out, "hangs"),
        (outcome.left, "leaves processes behind"),
        (outcome.status < 0, f"dies of signal {-outcome.status}"),
        (outcome.traceback, f"traceback: {outcome.traceback}"),
        (found, f"prints the control character {found and found[0]!r}"),
        (len(outcome.error) > _CHARACTERS, f"a line of {len(outcome.error):,} characters"),
        (outcome.status == 0 and errors, f"status 0 with an error: {outcome.error}"),
        (outcome.status not in (0, *statuses), f"status {outcome.status}: {outcome.error}"),
        (
            outcome.status and not is_one_line and not lists_problems,
            f"{errors} errors in {len(lines)} lines: {outcome.stderr[:200]!r}",
        ),
    )
    return next((failure for failed, failure in failures if failed), None)


def message_failure(message: str) -> str | None:
    """Return what is wrong with a message of a program, None if nothing is."""
    if _CONTROL.search(message) or "\n" in message:
        return f"a message with control characters or several lines: {message[:200]!r}"
    return f"a message of {len(message):,} characters" if len(message) > _CHARACTERS else None


def memory_failure(outcome: Outcome, usual_bytes: int) -> str | None:
    """Return what is wrong with the memory of a process, None if nothing is."""
    beyond = outcome.peak_bytes - usual_bytes
    return f"needs {beyond / 1e9:.1f} GB more than for an undamaged file" if beyond > PEAK_BYTES else None


Snapshot = dict[str, tuple[str, ...]]


def snapshot(folder: Path) -> Snapshot:
    """Return type, mode, owner and content of everything below a folder, by relative path."""
    return {str(path.relative_to(folder)): _facts(path) for path in sorted(folder.rglob("*"))}


def _facts(path: Path) -> tuple[str, ...]:
    status = path.lstat()
    facts = (stat.filemode(status.st_mode), str(status.st_uid))
    if stat.S_ISLNK(status.st_mode):
        return (*facts, os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        return (*facts, hashlib.sha256(path.read_bytes()).hexdigest(), str(status.st_ino))
    return (*facts, str(status.st_rdev))


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths that were added, removed or changed."""
    paths = sorted(before.keys() | after.keys())
    return [path for path in paths if before.get(path) != after.get(path)]
