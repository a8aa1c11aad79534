"""Checkpoint files: written atomically, and read without trusting their contents."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlperf.util.errors import RunError
from mlperf.util.files import atomic_file
from mlperf.util.memory import require_memory

# The original implementation stored metrics as NumPy scalars. Besides them, only tensors and containers are
# allowed. NumPy 1 and 2 pickle scalars under different module names.
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


def write_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` to `path` atomically. RunError if that fails."""
    try:
        with atomic_file(path) as file:
            torch.save(dict(contents), file)
    except (OSError, RuntimeError) as error:
        raise RunError(f"{path}: the checkpoint cannot be written: {error}") from None


def read_checkpoint(path: Path, model_bytes: int = 0) -> dict[str, Any]:
    """Return the contents of a checkpoint, with tensors on the CPU, without executing code from the file.

    A zip archive is memory-mapped, so its tensors need no memory until they are copied into a model. A file in
    PyTorch's legacy format is read into memory and must fit there together with the model.

    model_bytes: memory of the model that is allocated but not yet resident.

    RunError, in one line, if the file is missing, truncated, not a checkpoint, refers to code, or needs more
    memory than is available.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size == 0:
            raise RunError(f"{path}: {'empty file' if path.is_file() else 'not a file'}, not a checkpoint")
        is_zip = zipfile.is_zipfile(path)
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {error.strerror}") from None
    require_memory(model_bytes if is_zip else size + model_bytes, str(path))
    if is_zip and _zip_contains(path, "/constants.pkl"):
        raise RunError(
            f"{path}: refused: a TorchScript program, not a checkpoint, which could execute code when loaded"
        )
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # legacy format
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise RunError(_refusal(path, is_zip, str(error))) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        known = f" ({reason})" if reason and not isinstance(error, KeyError) else ""
        raise RunError(f"{path}: truncated or not a PyTorch checkpoint{known}") from None
    if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
        raise RunError(f"{path}: a PyTorch file, but not a checkpoint of this benchmark: it has no state_dict")
    return contents


def is_checkpoint(path: Path) -> bool:
    """Return whether a file looks like one of torch.save, in its zip format or the older pickle format."""
    if _zip_contains(path, "/data.pkl"):
        return True
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _zip_contains(path: Path, ending: str) -> bool:
    """Return whether a zip archive contains a file whose name has this ending, False if not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(ending) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _refusal(path: Path, is_zip: bool, message: str) -> str:
    """Return the error message for a file that torch.load rejects with `message`."""
    match = re.search(r"(?:GLOBAL|global|class) `?([\w.]+)", message)
    named = match[1] if match and "." in match[1] else None if is_zip else _first_callable(path)
    if named is not None:
        return f"{path}: refused: it references {named}, which could execute code when loaded"
    return f"{path}: truncated or not a PyTorch checkpoint"


def _first_callable(path: Path) -> str | None:
    """Return the first function or class that a plain pickle references, None if there is none."""
    strings: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except (OSError, ValueError):
        pass
    return None
