"""What a checkpoint records of the data of its training besides flags: the numbers of the ids, and the columns.

The rows of the tables belong to ids by their number. Data that numbers them differently, or whose dense features
are computed in another way, gives nonsense without an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mlperf.data.columns.description import Transform
from mlperf.data.prepared.dataset import PreparedData
from mlperf.util.errors import RunError
from mlperf.util.printable import shown_name

_NUMBERING, _COLUMNS = "numbering", "columns"
DATA_ENTRIES = frozenset({_NUMBERING, _COLUMNS})
_DIGEST_BYTES = 8


def recorded_data(prepared: PreparedData) -> dict[str, str]:
    """Return the entries for `prepared`, each a fingerprint and the name of the manifest: "91ab... of x.json".

    Data prepared by another tool, or before ids were kept, has none.
    """
    manifest = f"{prepared.train.name.removesuffix('_train.bin')}.json"
    entries = {}
    if prepared.numbering is not None:
        entries[_NUMBERING] = f"{prepared.numbering} of {manifest}"
    if prepared.traits is not None and prepared.traits.has_columns_file:
        entries[_COLUMNS] = f"{_fingerprint(prepared)} of {manifest}"
    return entries


def check_data(saved: Mapping[str, str | None], current: Mapping[str, str | None], path: Path) -> None:
    """Raise RunError if the checkpoint `path` was trained with another numbering or with other columns.

    saved: entries of the checkpoint. current: those of this run. An entry that one of them lacks is not compared.
    """
    trained, own = saved.get(_NUMBERING), current.get(_NUMBERING)
    if _differ(trained, own):
        raise RunError(
            f"{path}: was trained with the numbering {shown_name(trained)}, this data has the numbering {own}: "
            "ids have other rows; prepare the data with --ids-from=the data of the training"
        )
    trained, own = saved.get(_COLUMNS), current.get(_COLUMNS)
    if _differ(trained, own):
        raise RunError(
            f"{path}: was trained with the columns {shown_name(trained)}, this data has the columns {own}: the "
            "transforms of the dense features, their means and deviations, or the numbers of ids differ; prepare "
            "the data with the same --columns and with --ids-from=the data of the training"
        )


def _differ(saved: str | None, current: str | None) -> bool:
    if saved is None or current is None:
        return False
    return saved.partition(" ")[0] != current.partition(" ")[0]


def _fingerprint(prepared: PreparedData) -> str:
    """Return 16 hexadecimal digits of what the model gets of a row: transforms, and numbers of ids."""
    columns = prepared.columns
    count = len(columns.dense)
    statistics = zip(prepared.means or (0.0,) * count, prepared.deviations or (1.0,) * count, strict=True)
    dense = [
        (column.transform.value, *(numbers if column.transform is Transform.STANDARDIZE else ()))
        for column, numbers in zip(columns.dense, statistics, strict=True)
    ]
    text = json.dumps([dense, columns.schema.ids_per_table])
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
