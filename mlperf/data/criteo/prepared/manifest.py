"""Manifest of a prepared data set: its flags, input files and output files."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mlperf.data.criteo.days import SPLITS
from mlperf.data.criteo.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.files import write_atomically

FORMAT_VERSION = 1
_FLAGS_OF_OLDER_MANIFESTS = {"data_sub_sample_rate": 0.0, "bad_rows": "stop"}  # defaults for missing flags
_CHECKSUM = "manifest_crc32"  # checksum of the rest of the file; older manifests have none


@dataclass(frozen=True)
class FileFacts:
    """Name, size in bytes and modification time of a file and, for a prepared file, the CRC-32 of its bytes."""

    name: str
    size: int
    mtime_ns: int
    crc32: int | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FileFacts:
        """Return the facts from a manifest. KeyError or TypeError if one is missing or of another type."""
        _require_type(str, content["name"])
        _require_type(int, content["size"], content["mtime_ns"])
        _require_type((int, type(None)), content["crc32"])
        return cls(content["name"], content["size"], content["mtime_ns"], content["crc32"])

    @classmethod
    def of(cls, path: Path, crc32: int | None = None) -> FileFacts:
        """Return the facts of a file. OSError if it does not exist."""
        status = path.stat()
        return cls(path.name, status.st_size, status.st_mtime_ns, crc32)


@dataclass(frozen=True)
class Manifest:
    """Result of a preparation.

    flags, inputs: flags and input files; preparations in which both are equal give the same result.
    rows_per_day: rows of each day, without those that were dropped.
    counts: rows of each embedding table.
    files: facts of the binary file of each split.
    bad_rows: number of bad rows left out, by file name and reason.
    archive: facts of X.npz, if it was written.
    """

    flags: dict[str, Any]
    inputs: list[FileFacts]
    rows_per_day: list[int]
    counts: list[int]
    files: dict[str, FileFacts]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    archive: FileFacts | None = None
    format_version: int = FORMAT_VERSION

    @property
    def adopted(self) -> bool:
        """Whether the rows were converted from archives of another tool."""
        return "adopted" in self.flags

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self.files[split].size // CRITEO.row_bytes

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
        write_atomically(path, json.dumps({**content, _CHECKSUM: json_crc32(content)}, indent=1), temporary_folder)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Return the manifest, None if there is no file. RunError if it is damaged or of another version."""
        try:
            return cls._from_json(json.loads(path.read_text()), path)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path}: damaged manifest ({type(error).__name__}: {error}); remove it and the files it "
                "describes to prepare the data again"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None

    @classmethod
    def _from_json(cls, content: dict[str, Any], path: Path) -> Manifest:
        """Raise ValueError, KeyError or TypeError for content that `write` does not produce."""
        if content["format_version"] != FORMAT_VERSION:
            raise RunError(
                f"{path}: format version {content['format_version']}, this program reads {FORMAT_VERSION}"
            )
        if content.pop(_CHECKSUM, None) not in (None, json_crc32(content)):
            raise ValueError("its checksum does not match")
        if unknown := content.keys() - {known.name for known in fields(cls)}:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        flags, archive = content["flags"], content.get("archive")
        _require_type(dict, flags)
        if "adopted" not in flags:
            flags = {**_FLAGS_OF_OLDER_MANIFESTS, **flags}
            _require_type(str, flags["data_set"], flags["data_randomize"])
            _require_type(int, flags["max_ind_range"], flags["numpy_rand_seed"])
            _require_type((int, float), flags["data_sub_sample_rate"])
        _require_type(int, *content["rows_per_day"], *content["counts"])
        if len(content["counts"]) != CRITEO.tables:
            raise ValueError(f"{len(content['counts'])} counts; expected {CRITEO.tables}")
        files = {split: FileFacts.from_json(content["files"][split]) for split in SPLITS}
        _require_type(int, *(facts.crc32 for facts in files.values()))
        bad_rows = content.get("bad_rows", {})
        for reasons in bad_rows.values():
            _require_type(int, *reasons.values())
        return cls(
            flags=flags,
            inputs=[FileFacts.from_json(facts) for facts in content["inputs"]],
            rows_per_day=content["rows_per_day"],
            counts=content["counts"],
            files=files,
            bad_rows=bad_rows,
            archive=None if archive is None else FileFacts.from_json(archive),
        )

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
            path, facts = paths.split(split), self.files[split]
            if not path.is_file():
                return f"{path}: no such file, but its manifest {paths.manifest} exists"
            found = FileFacts.of(path)
            if found.size != facts.size:
                return f"{path}: {found.size} bytes, its manifest {paths.manifest} says {facts.size}"
            if found.mtime_ns != facts.mtime_ns and file_crc32(path) != facts.crc32:
                return (
                    f"{path}: does not match its manifest {paths.manifest} (checksum differs); "
                    "remove both to prepare the data again"
                )
        return None


def json_crc32(content: dict[str, Any]) -> int:
    """Return a CRC-32 of JSON content that does not depend on key order or white space."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _require_type(kind: type | tuple[type, ...], *values: object) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{value!r} is a {type(value).__name__}")
