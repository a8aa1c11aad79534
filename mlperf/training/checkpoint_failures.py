"""Failures of reading and writing checkpoints, as errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.training.checkpoint_archive import DamagedArchive, UnsupportedArchive
from mlperf.training.checkpoint_values import DamagedPickle, UnsafePickle
from mlperf.util.errors import RunError


@contextmanager
def reading(path: Path, damaged: str = "damaged, or not a PyTorch checkpoint") -> Iterator[None]:
    """Turn errors of reading `path` into RunErrors. damaged: what a file is that is not intact."""
    try:
        yield
    except (UnsupportedArchive, UnsafePickle) as error:
        raise RunError(f"{path}: refused: {error}") from None
    except (DamagedArchive, DamagedPickle) as error:
        raise RunError(f"{path}: {damaged}: {error}") from None
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise RunError(f"{path}: the checkpoint cannot be read: not enough memory") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing `path` into RunErrors."""
    try:
        yield
    except (OSError, RuntimeError, DamagedArchive) as error:
        cause = str(error).partition("\n")[0]  # errors of a GPU have several lines
        raise RunError(f"{path}: the checkpoint cannot be written: {cause}") from None
