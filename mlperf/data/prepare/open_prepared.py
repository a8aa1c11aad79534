"""Open data that is already prepared, by this program or by another tool."""

from __future__ import annotations

from pathlib import Path

from mlperf.benchmarks.data_sets import TERABYTE_DAYS
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepared.dataset import PreparedData, describe, open_foreign
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures


def open_prepared(processed_data_file: Path, raw_data_file: Path | None = None) -> PreparedData | None:
    """Return the prepared data set, None if there is none or its preparation is not finished.

    Raises RunError if it is damaged.
    """
    paths = DatasetPaths.from_name(processed_data_file)
    with system_failures(paths.prefix, "the prepared data cannot be opened"):
        manifest = Manifest.read(paths.manifest)
        if manifest is None or manifest.adopted:
            return open_other_program(paths, raw_data_file)
        prepared = describe(paths, manifest)  # first: a file that changes during the check is noticed on opening
        problem = manifest.find_problem(paths)
        if problem is None:
            return prepared
        if paths.work_folder.exists():
            return None
        raise RunError(problem)


def open_other_program(paths: DatasetPaths, raw_data_file: Path | None) -> PreparedData | None:
    """Return a data set prepared by another tool, None if there is none or if this program prepared it.

    Binary files are used as they are. Archives are converted to binary files once, and again if they change.
    """
    # Check the files first: a preparation that ends now writes its manifest before it moves its files.
    has_files = any(paths.split(split).is_file() for split in SPLITS)
    manifest = Manifest.read(paths.manifest)
    if manifest is None and has_files:
        return open_foreign(paths, raw_data_file)
    if manifest is not None and not manifest.adopted:
        return None
    archives = find_archives(paths, raw_data_file)
    facts = [FileFacts.of(path) for path in archives]
    if manifest is not None and manifest.files_complete(paths) and (not archives or manifest.inputs == facts):
        prepared = describe(paths, manifest)
        problem = manifest.find_problem(paths)
        if problem is None:
            return prepared
        if not (archives and paths.work_folder.exists()):  # with a work folder, it was killed while moving files
            raise RunError(problem)
    if not archives:
        return None
    from mlperf.data.prepare.import_archives import import_archives  # late: compiles its loops on import

    return describe(paths, import_archives(paths, archives, raw_data_file))


def find_archives(paths: DatasetPaths, raw_data_file: Path | None) -> list[Path]:
    """Return X.npz, or day_0_reordered.npz ... if the raw data is day_0 ...; an empty list if there are none."""
    if paths.archive.is_file():
        return [paths.archive]
    if raw_data_file is None:
        return []
    days = [raw_data_file.with_name(f"{raw_data_file.name}_{day}_reordered.npz") for day in range(TERABYTE_DAYS)]
    if not days[0].is_file():
        return []
    for day in days:
        if not day.is_file():
            raise RunError(
                f"{day}: no such file, but {days[0].name} exists; all {TERABYTE_DAYS} days are required"
            )
    return days
