"""Whether prepared data is what flags ask for that determine its contents besides the flags of its manifest."""

from __future__ import annotations

from pathlib import Path

from mlperf.data.columns.description_file import read_description
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.settings.dataset import DAYS, DatasetSettings
from mlperf.util.errors import RunError, UsageError

_ADVICE = "omit the flag, or choose another --processed-data-file to prepare the data again"


def require_agreement(prepared: PreparedData, data: DatasetSettings) -> None:
    """Raise UsageError if the data was prepared with other --columns, --ids-from or --days than are given.

    RunError if a file that they name cannot be used.
    """
    if data.columns is not None and read_description(data.columns) != prepared.columns:
        raise UsageError(
            f"--columns={data.columns} describes other columns than those with which {prepared.train} was "
            f"prepared; {_ADVICE}"
        )
    if data.days is not None and prepared.days != data.days:
        days = "of other days" if prepared.data_set is not None else "by another tool"
        raise UsageError(f"--days={DAYS.show(data.days)}: {prepared.train} was prepared {days}; {_ADVICE}")
    if data.ids_from is not None:
        wanted = _fingerprint(data.ids_from)
        if wanted != prepared.numbering:
            found = "an unknown numbering" if prepared.numbering is None else f"the numbering {prepared.numbering}"
            raise UsageError(
                f"--ids-from={data.ids_from} has the numbering {wanted}, {prepared.train} has {found}; {_ADVICE}"
            )


def _fingerprint(prefix: Path) -> str:
    """Return the fingerprint of the numbering of a data set. RunError if it has none."""
    paths = DatasetPaths.from_name(prefix, "--ids-from")
    manifest = Manifest.read(paths.manifest)
    if manifest is None or manifest.numbering is None:
        problem = "no such file" if manifest is None else "does not say how the ids are numbered"
        raise RunError(f"--ids-from={prefix}: {paths.manifest}: {problem}")
    return manifest.numbering.fingerprint
