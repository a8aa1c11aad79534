"""Folders of runs (--output-dir), for the tests of what is in them and of what continues there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def names(folder: Path) -> list[str]:
    """Return the names in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records in the metrics file of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
