"""What a checkpoint says of its model before it is loaded."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.checkpoint_flags import Flags, checked_flags
from mlperf.training.checkpoint_schema import FLAGS
from mlperf.training.state_dict import unwrapped


@dataclass(frozen=True)
class SavedModel:
    """flags: those recorded; older checkpoints have none. table_rows: empty if the tables are compressed."""

    flags: Flags
    table_rows: tuple[int, ...]


def read_saved_model(path: Path) -> SavedModel:
    """Return what a checkpoint says of its model. RunError if it is missing, damaged or no checkpoint."""
    with open_checkpoint(path) as file:
        flags = checked_flags(file.contents[FLAGS], path) if FLAGS in file.contents else {}
        return SavedModel(flags, _table_rows(unwrapped(file.contents["state_dict"], path)))


def _table_rows(weights: Mapping[str, Any]) -> tuple[int, ...]:
    names = (f"emb_l.{table}.weight" for table in itertools.count())
    shapes = (tuple(getattr(weights.get(name), "shape", ())) for name in names)
    return tuple(int(shape[0]) for shape in itertools.takewhile(lambda shape: len(shape) == 2, shapes))
