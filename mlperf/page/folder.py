"""Files in the folder of a run besides its metrics: checkpoints and the time breakdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlperf.compliance.log_reader import is_number
from mlperf.settings.run import TIME_FILE
from mlperf.util.errors import RunError
from mlperf.util.files import read_regular
from mlperf.util.strict_json import SchemaError, parse_json

_MAX_TIME_FILE = 1 << 24  # bytes
# Entries of a checkpoint, and what the page calls them.
_ENTRIES = {
    "epoch": "epoch",
    "iter": "iteration",
    "nbatches": "batches_per_epoch",
    "test_auc": "auc",
    "test_acc": "accuracy",
    "train_loss": "loss",
}


def time_breakdown_in(folder: Path) -> dict[str, Any] | None:
    """Return the time breakdown in a folder, None if there is none. RunError if it cannot be read."""
    path = folder / TIME_FILE
    if not path.is_file():
        return None
    try:
        content = parse_json(read_regular(path, _MAX_TIME_FILE))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except SchemaError as error:
        raise RunError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: no time breakdown: must be an object")
    return content


def checkpoints_in(folder: Path) -> list[dict[str, Any]]:
    """Return what the checkpoints in a folder say about themselves, in order of their names.

    Each has the entries "path" and "bytes", and "problem" if it cannot be read; otherwise position and metrics.
    Weights are not read.
    """
    try:
        found = sorted(filter(_is_checkpoint, folder.iterdir()))
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}") from None
    return [_checkpoint(path) for path in found]


def _is_checkpoint(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix == ".pt"
    from mlperf.training.sharded_index import INDEX_NAME  # imports torch

    return (path / INDEX_NAME).is_file()


def _checkpoint(path: Path) -> dict[str, Any]:
    from mlperf.training.checkpoint_file import open_checkpoint  # imports torch

    facts: dict[str, Any] = {"path": str(path), "bytes": _size(path)}
    try:
        with open_checkpoint(path, weights_suffice=True) as file:
            found = {name: file.contents.get(entry) for entry, name in _ENTRIES.items()}
    except RunError as error:
        return facts | {"problem": str(error).removeprefix(f"{path}: ")}
    numbers = {name: value for name, value in found.items() if is_number(value)}
    return facts | numbers


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
