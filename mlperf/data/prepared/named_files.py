"""The files of a data set, named for messages: none of them may be the output of a run that reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import gzipped
from mlperf.data.prepared.reference_paths import reference_names, reference_prefix
from mlperf.settings.dataset import DatasetSettings
from mlperf.util.output_files import NamedFile, named


def named_raw_files(raw_data_file: Path | None) -> list[NamedFile]:
    """Return the raw text of either data set, plain and gzipped, and the archives of other programs beside it."""
    if raw_data_file is None:
        return []
    days = [raw_data_file.with_name(f"{raw_data_file.name}_{day}") for day in range(TERABYTE_DAYS)]
    texts = [raw_data_file, *days]
    counts = raw_data_file.with_name(f"{raw_data_file.name.removesuffix('.txt')}_fea_count.npz")
    archives = [day.with_name(f"{day.name}_reordered.npz") for day in days]
    names = [*texts, *map(gzipped, texts), counts, *archives]
    flag = f"--raw-data-file={raw_data_file}"
    return [
        NamedFile(path, flag if path == raw_data_file else f"{path.name} of {flag}", is_folder=os.path.isdir(path))
        for path in names
    ]


def named_prepared_files(paths: DatasetPaths, origin: str) -> list[NamedFile]:
    """Return the splits, the manifest, the ids and the archive. origin: the flag from which the names follow."""
    names = [*map(paths.split, SPLITS), paths.manifest, paths.ids, paths.archive]
    return [NamedFile(path, f"{path.name} of {origin}") for path in names]


def named_described_files(data: DatasetSettings, texts: Sequence[Path] = ()) -> list[NamedFile]:
    """Return --columns, the raw text that it describes, and the files of --ids-from. texts: paths of that text."""
    files = named("--columns", data.columns)
    files += [NamedFile(path, f"{path.name} of --columns={data.columns}") for path in texts]
    if data.ids_from is not None:
        origin = f"--ids-from={data.ids_from}"
        files += named_prepared_files(DatasetPaths.from_name(data.ids_from, "--ids-from"), origin)
    return files


def named_counts(paths: DatasetPaths, origin: str) -> list[NamedFile]:
    """Return the files with the rows per table beside the splits of another program."""
    folder = paths.prefix.parent
    try:
        names = [name for name in os.listdir(folder) if name.endswith("_fea_count.npz")]
    except OSError:  # what reads it reports that
        names = []
    return [NamedFile(folder / name, f"{name} beside {origin}") for name in names]


def named_reference_files(processed_data_file: Path | None) -> list[NamedFile]:
    """Return the files of the DLRM-DCNv2 reference that --processed-data-file names."""
    prefix = None if processed_data_file is None else reference_prefix(processed_data_file)
    if prefix is None:
        return []
    flag = f"--processed-data-file={processed_data_file}"
    return [NamedFile(path, f"{path.name} of {flag}") for path in reference_names(prefix)]


def named_work_files(paths: DatasetPaths, origin: str) -> list[NamedFile]:
    """Return the lock and the working folder of a preparation."""
    return [
        NamedFile(paths.lock, f"the lock {paths.lock.name} of {origin}"),
        NamedFile(
            paths.work_folder,
            f"the working folder {paths.work_folder.name} of {origin}",
            is_folder=True,
            is_private=True,
        ),
    ]
