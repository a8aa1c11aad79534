"""Manifest of a prepared data set: its flags, input files and output files."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription
from mlperf.data.columns.description_json import to_json
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest_schema import ADDED_ENTRIES, checked_content
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import RowSchema
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.files import read_regular, write_atomically
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, parse_json

FORMAT_VERSION = 1
MAX_BYTES = 1 << 20  # a manifest has a few kilobytes
CHECKSUM = "manifest_crc32"  # checksum of the rest of the file; older manifests have none


@dataclass(frozen=True)
class Numbering:
    """How the ids are numbered.

    fingerprint: that of X.ids. ids_from: name of the data set whose numbering was used; None: its own.
    unknown: with `ids_from`, the number of ids of each table that it lacks. They have the row of the empty id.
    """

    fingerprint: str
    ids_from: str | None = None
    unknown: tuple[int, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Result of a preparation.

    flags, inputs: flags and input files; preparations in which both are equal give the same result.
    rows_per_day: rows of each day or, with `columns`, of each split, without those that were dropped.
    counts: number of distinct ids of each embedding table.
    files: facts of the binary file of each split.
    bad_rows: number of bad rows left out, by file name and reason.
    archive: facts of X.npz, if it was written.
    smallest_integer: the smallest dense feature of the data, if the files contain negative ones; otherwise None.
    columns: description of the columns; None if they are Criteo's.
    ids, numbering: facts of X.ids, and how the ids are numbered; None in manifests of earlier versions.
    means, deviations: mean and standard deviation of each dense column in the training rows, 0 and 1 if it is not
        standardized; empty if none is.
    cut_fields: number of fields of each categorical column with more ids than are kept; empty if there are none.
    collision_chances: for each categorical column, the probability that two of its words have the same key; empty
        if no column has words.
    """

    flags: dict[str, Any]
    inputs: list[FileFacts]
    rows_per_day: list[int]
    counts: list[int]
    files: dict[str, FileFacts]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    archive: FileFacts | None = None
    smallest_integer: int | None = None
    columns: ColumnsDescription | None = None
    ids: FileFacts | None = None
    numbering: Numbering | None = None
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    cut_fields: tuple[int, ...] = ()
    collision_chances: tuple[float, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def adopted(self) -> bool:
        """Whether the rows were converted from archives of another tool."""
        return "adopted" in self.flags

    @property
    def schema(self) -> RowSchema:
        """The layout of the rows."""
        return (self.columns or CRITEO_COLUMNS).schema

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self.files[split].size // self.schema.row_bytes

    @property
    def checksums(self) -> dict[str, int]:
        """CRC-32 of the binary file of each split."""
        return {split: facts.crc32 for split, facts in self.files.items() if facts.crc32 is not None}

    def with_archive(self, archive: FileFacts) -> Manifest:
        """Return this manifest with an archive."""
        return replace(self, archive=archive)

    def write(self, path: Path, temporary_folder: Path) -> None:
        """Write the manifest with its own checksum, atomically, through a temporary file in `temporary_folder`."""
        content = asdict(self)
        if self.columns is not None:
            content["columns"] = to_json(self.columns)
        for name in ADDED_ENTRIES:  # as in the manifests of versions that did not have them
            if getattr(self, name) in (None, ()):
                del content[name]
        write_atomically(path, json.dumps({**content, CHECKSUM: json_crc32(content)}, indent=1), temporary_folder)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Return the manifest, None if there is no file. RunError if it is damaged or of another version."""
        try:
            return cls._from_json(parse_json(read_regular(path, MAX_BYTES)), path)
        except FileNotFoundError:
            if os.path.islink(path):
                raise RunError(f"{path}: is a link to a file that does not exist") from None
            return None
        except (SchemaError, RecursionError) as error:
            raise RunError(
                f"{path}: damaged manifest: {error}; remove it and the files that it describes to prepare the "
                "data again"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None

    @classmethod
    def _from_json(cls, content: Any, path: Path) -> Manifest:
        """Raise SchemaError for content that `write` does not produce, RunError if it is of another version."""
        if not isinstance(content, dict):
            raise SchemaError("it is not an object")
        version = content.get("format_version")
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise RunError(f"{path}: format version {shown(version)}, this program reads {FORMAT_VERSION}")
        if CHECKSUM in content and content.pop(CHECKSUM) != json_crc32(content):
            raise SchemaError("its checksum does not match")
        checked = checked_content(content, FORMAT_VERSION)
        numbering = checked.pop("numbering", None)
        return cls(**checked, numbering=None if numbering is None else Numbering(**numbering))

    def files_complete(self, paths: DatasetPaths) -> bool:
        """Whether all binary files have their final size. If not, a preparation may still be moving them."""
        return all(
            paths.split(split).is_file() and paths.split(split).stat().st_size == self.files[split].size
            for split in SPLITS
        )

    def find_problem(self, paths: DatasetPaths) -> str | None:
        """Compare the binary files with the manifest. Return the first difference, None if there is none.

        The checksum of a file is computed only if its modification time has changed, for example by copying.
        """
        for split in SPLITS:
            if problem := find_difference(paths.split(split), self.files[split], paths.manifest):
                return problem
        return None


def find_difference(path: Path, facts: FileFacts, manifest: Path) -> str | None:
    """Compare a file with its facts in a manifest. Return a difference, None if there is none."""
    if not path.is_file():
        return f"{path}: no such file, but its manifest {manifest} exists"
    found = FileFacts.of(path)
    if found.size != facts.size:
        return f"{path}: {found.size} bytes, its manifest {manifest} says {facts.size}"
    if found.mtime_ns != facts.mtime_ns and file_crc32(path) != facts.crc32:
        return (
            f"{path}: does not match its manifest {manifest} (checksum differs); "
            "remove both to prepare the data again"
        )
    return None


def json_crc32(content: dict[str, Any]) -> int:
    """Return a CRC-32 of JSON content that does not depend on key order or white space."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
