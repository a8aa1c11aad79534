"""What a preparation found in the categorical columns, in lines to print."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlperf.data.columns.description import CRITEO_COLUMNS, Source
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO
from mlperf.util.printable import shown_name

_log = logging.getLogger(__name__)


def column_facts(processed_data_file: Path) -> Iterator[str]:
    """Yield lines on the ids of prepared data: those that were cut off, unknown ones, and colliding words."""
    manifest = Manifest.read(DatasetPaths.from_name(processed_data_file).manifest)
    if manifest is None:
        return
    columns = [column.source for column in (manifest.columns or CRITEO_COLUMNS).categorical]
    if manifest.numbering is not None and manifest.numbering.ids_from is not None:
        unknown = manifest.numbering.unknown
        yield f"ids that {manifest.numbering.ids_from} lacks: {sum(unknown):,}{_by_column(columns, unknown)}"
    if manifest.cut_fields:
        yield f"fields with more ids than are kept: {counts_by_column(columns, manifest.cut_fields)}"
    if manifest.collision_chances:
        chances = [f"{chance:.1g}" if chance else "" for chance in manifest.collision_chances]
        listed = ", ".join(
            f"{_name(column)} {chance}" for column, chance in zip(columns, chances, strict=True) if chance
        )
        yield f"probability that two words of a column have the same key: {listed or 0}"


def _by_column(columns: Sequence[Source], counts: Sequence[int]) -> str:
    return f" ({counts_by_column(columns, counts)})" if any(counts) else ""


def counts_by_column(columns: Sequence[Source], counts: Sequence[int]) -> str:
    """Return the columns with their counts, if these are not 0: "column 15 12, column 17 3"."""
    return ", ".join(f"{_name(column)} {count:,}" for column, count in zip(columns, counts, strict=True) if count)


def _name(column: Source) -> str:
    return shown_name(column) if isinstance(column, str) else f"column {column}"


def warn_of_missing_rows(ids: KnownIds) -> None:
    """Warn if unknown ids have row 0, which is that of another id, because there is no row of the empty id."""
    counts = {table: ids.unknown[table] for table in ids.without_empty_row if ids.unknown[table]}
    if counts:
        columns = ", ".join(f"{CRITEO.first_id + table + 1} ({count:,})" for table, count in counts.items())
        _log.warning(
            "%s has no empty ids in some columns, whose unknown ids get row 0, that of another id; columns, with "
            "these ids: %s",
            *(ids.numbering.path, columns),
        )
