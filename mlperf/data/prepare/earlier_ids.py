"""The data set whose numbering of the ids a preparation uses (--ids-from)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.data.columns.description import CRITEO_COLUMNS, CategoricalColumn, ColumnsDescription, DenseColumn
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.manifest import Manifest, find_difference
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError, UsageError


@dataclass(frozen=True)
class EarlierIds:
    """name: that of the data set. means, deviations: as in its manifest."""

    name: str
    numbering: IdNumbering
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def open(cls, prefix: Path, settings: PreparationSettings, columns: ColumnsDescription | None) -> EarlierIds:
        """Open the numbering of the data set with a prefix.

        UsageError if the data was prepared with other flags or from other columns. RunError if it has no ids or if
        they are damaged.
        """
        flag = f"--ids-from={prefix}"
        paths = DatasetPaths.from_name(prefix, "--ids-from")
        manifest = Manifest.read(paths.manifest)
        if manifest is None:
            raise RunError(f"{flag}: {paths.manifest}: no such file")
        if manifest.adopted or manifest.ids is None or manifest.numbering is None:
            raise RunError(
                f"{flag}: {paths.manifest} names no file with the ids: the data was prepared by another program "
                "or an earlier version; prepare it again from its text, under another name or without these files"
            )
        for name in ("data_set", "max_ind_range"):
            wanted, found = settings.flags()[name], manifest.flags[name]
            if found != wanted:
                raise UsageError(f"{flag} was prepared with --{name.replace('_', '-')}={found}, not {wanted}")
        if difference := _difference(manifest.columns or CRITEO_COLUMNS, columns or CRITEO_COLUMNS):
            raise UsageError(f"{flag} has other columns than --columns={settings.columns}: {difference}")
        if problem := find_difference(paths.ids, manifest.ids, paths.manifest):
            raise RunError(f"{flag}: {problem}")
        numbering = IdNumbering.read(paths.ids, manifest.numbering.fingerprint)
        if [column.count for column in numbering.columns] != manifest.counts:
            raise RunError(f"{flag}: {paths.ids} has other numbers of ids than {paths.manifest} says")
        return cls(paths.prefix.name, numbering, manifest.means, manifest.deviations)


def _difference(earlier: ColumnsDescription, columns: ColumnsDescription) -> str | None:
    """Return how the features of two logs differ, None if they have the same.

    The columns may have other positions, and the files another format and other splits.
    """
    return _difference_of("dense", earlier.dense, columns.dense) or _difference_of(
        "categorical", earlier.categorical, columns.categorical
    )


def _difference_of(
    kind: str,
    earlier: Sequence[DenseColumn | CategoricalColumn],
    columns: Sequence[DenseColumn | CategoricalColumn],
) -> str | None:
    if len(earlier) != len(columns):
        return f"{len(earlier)} {kind} columns, not {len(columns)}"
    for number, (before, now) in enumerate(zip(earlier, columns, strict=True), 1):
        named = isinstance(before.source, str) and isinstance(now.source, str)
        if named and before.source != now.source:
            return f"{kind} column {number} is {before.source!r}, not {now.source!r}"
        if _properties(before) != _properties(now):
            return f"{kind} column {number} has another type or transform, or another number of ids"
    return None


def _properties(column: DenseColumn | CategoricalColumn) -> tuple[object, ...]:
    if isinstance(column, DenseColumn):
        return column.transform, column.is_integer
    return column.kind, column.ids
