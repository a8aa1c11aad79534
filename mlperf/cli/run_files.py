"""What the programs that draw runs share: the runs they are given, their labels, and the file they write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlperf.plots.log_files import LOG_SUFFIXES
from mlperf.settings.kinds import file_name
from mlperf.util.errors import UsageError
from mlperf.util.output_files import NamedFile, named, require_distinct, require_writable_file


def output_path(text: str) -> Path:
    """Return the value of --output. A folder is allowed here: `output_file` suggests a name in it."""
    path: Path = Path(text) if os.path.isdir(text) or not text else file_name(text)
    return path


def output_file(requested: Path, runs: Sequence[Path], default: Path, *, one_format: bool = False) -> Path:
    """Return the file to write, which gets the suffix of `default` if it has none.

    one_format: whether other suffixes are refused.

    UsageError if it is a folder, cannot be written, or is one of the files of the runs.
    """
    if os.path.isdir(requested):
        raise UsageError(f"--output={requested} is a folder; must be a file name, such as {requested / default}")
    output = requested if requested.suffix else requested.with_name(f"{requested.name}{default.suffix}")
    if one_format and output.suffix != default.suffix:
        raise UsageError(f"--output={output}: must end in {default.suffix}")
    require_distinct(_read_files(runs), named("--output", output))
    require_writable_file("--output", output)
    return output


def _read_files(runs: Sequence[Path]) -> Iterator[NamedFile]:
    """Yield the files, and the logs in the folders, among the arguments."""
    for run in runs:
        yield NamedFile(run, str(run), is_folder=run.is_dir())
        for path in run.rglob("*") if run.is_dir() else ():
            if path.suffix in LOG_SUFFIXES:
                yield NamedFile(path, str(path))
