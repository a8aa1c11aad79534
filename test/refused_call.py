"""Makes a call of path_cases.py, which must be refused in one line and change nothing."""

from __future__ import annotations

import os
from pathlib import Path

from path_cases import PathCase
from program import Finished, run_program


def refusal(case: PathCase, folder: Path) -> str | None:
    """Make the call of a case in `folder`, filled by `make_files`. Return what was wrong, None if nothing."""
    case.change(folder)
    before = contents(folder)
    arguments = [argument.replace("{folder}", str(folder)) for argument in case.arguments]
    run = run_program(*arguments, cwd=folder, program=case.program)
    return _problem(case, run) or _difference(before, contents(folder))


def _problem(case: PathCase, run: Finished) -> str | None:
    if run.status not in case.statuses:
        return f"status {run.status}: {run.stderr}"
    lines = run.stderr.splitlines()
    if len(lines) != 1 or ": error: " not in lines[0] or run.stdout:
        return f"not one line: {run.stdout}{run.stderr}"
    missing = [word for word in case.words if word not in lines[0]]
    return f"{', '.join(missing)} not named: {lines[0]}" if missing else None


def contents(folder: Path) -> dict[str, object]:
    """Return everything in a folder: contents of files, targets of links, and kinds of others."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = ("link", os.readlink(path))
        elif path.is_file():
            found[str(path)] = path.read_bytes()
        else:
            found[str(path)] = path.lstat().st_mode
    return found


def _difference(before: dict[str, object], after: dict[str, object]) -> str | None:
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    return f"changed: {', '.join(sorted(changed))}" if changed else None
