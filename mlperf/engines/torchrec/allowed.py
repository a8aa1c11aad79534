"""Which kinds of sharding each table may get: what the flags ask for, and what is possible and exact.

Does not import TorchRec: a wrong file is refused before anything is opened. R rows, D embedding dimension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.distributed.processes import Processes
from mlperf.engines.torchrec.supported import ROW_MULTIPLE
from mlperf.settings.processes import REFUSED_KINDS, SHARDING_KINDS
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import read_regular
from mlperf.util.strict_json import SchemaError, fields, parse_json, refuse

TABLE_WISE, ROW_WISE = "table-wise", "row-wise"
# Where rows are stored: on the device of the process, or in host memory with a cache on its GPU.
ON_DEVICE, CACHED = "fused", "fused-uvm-caching"
KERNELS = (ON_DEVICE, CACHED)

_ALL = "all"
_CUTS_COLUMNS = ("column-wise", "grid")
_TABLE_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
_MAX_BYTES = 1 << 20  # of a file with constraints


@dataclass(frozen=True)
class Allowed:
    """What the planner may choose for a table.

    kinds: of --sharding. kernel: None: on the device or, if the memory is not enough, in host memory with a cache.
    """

    kinds: tuple[str, ...]
    kernel: str | None = None


def refused_kind(kind: str, settings: Settings) -> str | None:
    """Return why a kind of sharding is refused: it changes the results. None if it does not."""
    optimizer = settings.training.optimizer
    if kind in _CUTS_COLUMNS and optimizer == "rwsadagrad" and not settings.inference_only:
        return f"it changes the results of --optimizer={optimizer}, which has one sum for all columns of a row"
    return None


def check_sharding(settings: Settings) -> None:
    """Raise UsageError or RunError if --sharding or --sharding-constraints cannot be followed by any run."""
    kind = settings.processes.sharding
    if kind != "auto" and (reason := refused_kind(kind, settings)) is not None:
        raise UsageError(f"--sharding={kind}: {reason}")
    if settings.processes.constraints is not None:
        read_constraints(settings.processes.constraints, settings)


def allowed_for_tables(
    settings: Settings, rows_per_table: Sequence[int], dimension: int, processes: Processes
) -> list[Allowed]:
    """Return what is allowed for each table. UsageError if the file of --sharding-constraints asks for more."""
    path = settings.processes.constraints
    named = {} if path is None else read_constraints(path, settings)
    for entry in named:
        if entry != _ALL and int(entry) >= len(rows_per_table):
            raise UsageError(
                f"--sharding-constraints={path}: {entry}: the tables have numbers from 0 to "
                f"{len(rows_per_table) - 1}"
            )
    found = []
    for number, rows in enumerate(rows_per_table):
        own = named.get(str(number))
        wanted = own or named.get(_ALL) or Allowed(_default_kinds(settings, processes))
        if processes.size == 1:  # all kinds are the same
            found.append(Allowed((TABLE_WISE,), wanted.kernel))
            continue
        possible = tuple(kind for kind in wanted.kinds if is_possible(kind, rows, dimension, processes))
        if own is not None and not possible:
            raise UsageError(
                f"--sharding-constraints={path}: {number}: {' or '.join(own.kinds)} is not possible for the table "
                f"of {rows:,} rows and {dimension} columns on {processes.size} processes: some would have nothing"
            )
        found.append(Allowed(possible or (TABLE_WISE,), wanted.kernel))
    return found


def _default_kinds(settings: Settings, processes: Processes) -> tuple[str, ...]:
    """Return the kinds without a constraint: the one of --sharding, or all that are exact with any optimizer."""
    if settings.processes.sharding != "auto":
        return (settings.processes.sharding,)
    if processes.nodes > 1 and processes.local_size > 1:
        return TABLE_WISE, ROW_WISE, "table-row-wise"
    return TABLE_WISE, ROW_WISE


def is_possible(kind: str, rows: int, dimension: int, processes: Processes) -> bool:
    """Return whether every process that should get a part of a table [R, D] gets rows and columns.

    FBGEMM's backward pass on a CPU fails for parts of 0 rows: four rows on three processes are 2, 2 and 0.
    """
    row_parts = {ROW_WISE: processes.size, "table-row-wise": processes.local_size, "grid": processes.local_size}
    parts = row_parts.get(kind, 1)
    column_parts = {"column-wise": processes.size, "grid": processes.nodes}.get(kind, 1)
    cuts_columns = column_parts == 1 or columns_of_part(dimension, column_parts) < dimension
    return (parts - 1) * -(-rows // parts) < rows and cuts_columns


def columns_of_part(dimension: int, parts: int) -> int:
    """Return the columns of the parts of a table that is cut into at most `parts` parts, D if it cannot be cut."""
    return next(
        columns
        for columns in range(ROW_MULTIPLE, dimension + 1, ROW_MULTIPLE)
        if dimension % columns == 0 and dimension // columns <= parts
    )


def read_constraints(path: Path, settings: Settings) -> Mapping[str, Allowed]:
    """Return the entries of a file of --sharding-constraints, by the number of the table or "all".

    UsageError, in one line with the file and the entry, if one is not allowed or contradicts a flag. RunError if
    the file cannot be read.
    """
    with system_failures(path, "the constraints cannot be read"):
        content = read_regular(path, _MAX_BYTES)
    try:
        entries = parse_json(content)
        if not isinstance(entries, dict):
            refuse("it", entries, 'an object with table numbers or "all"')
        constraints = {name: _entry(name, value, settings) for name, value in entries.items()}
    except SchemaError as error:
        raise UsageError(f"--sharding-constraints={path}: {error}") from None
    sharding = settings.processes.sharding
    if _ALL in constraints and sharding != "auto":
        raise UsageError(f"--sharding={sharding} contradicts the entry all of --sharding-constraints={path}")
    return constraints


def _entry(name: str, value: object, settings: Settings) -> Allowed:
    if name != _ALL and _TABLE_NUMBER.fullmatch(name) is None:
        refuse("a name", name, 'the number of a table, from 0 on, or "all"')
    kernel = None
    kinds: Any = value
    if isinstance(value, dict):
        content = fields(value, name, ["sharding"], ["kernel"])
        kinds, kernel = content["sharding"], content.get("kernel")
        _check_kernel(kernel, name, settings)
    kinds = kinds if isinstance(kinds, list) else [kinds]
    allowed = f"one of {', '.join(SHARDING_KINDS)}, or a list of them"
    if not kinds:
        refuse(name, kinds, allowed)
    for kind in kinds:
        if isinstance(kind, str) and kind in REFUSED_KINDS:
            raise SchemaError(f"{name}: {kind!r} {REFUSED_KINDS[kind]}; must be {allowed}")
        if kind not in SHARDING_KINDS:
            refuse(name, kind, allowed)
        if (reason := refused_kind(kind, settings)) is not None:
            raise SchemaError(f"{name}: {kind}: {reason}")
    if len(set(kinds)) < len(kinds):
        refuse(name, kinds, f"{allowed}, each once")
    return Allowed(tuple(kinds), kernel)


def _check_kernel(kernel: object, name: str, settings: Settings) -> None:
    if kernel is None:
        return
    if kernel not in KERNELS:
        refuse(f"{name}: kernel", kernel, f"one of {', '.join(KERNELS)}")
    if kernel == CACHED and not settings.use_gpu:
        raise SchemaError(f"{name}: kernel {CACHED} requires --use-gpu: it caches rows on a GPU")
