"""The manifest beside the prepared files: what they hold and what they were made from."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.data.criteo.prepared.paths import SPLITS, DatasetPaths
from mlperf.data.schema import ROW_BYTES, TABLES
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.failures import damage
from mlperf.util.files import write_atomically

FORMAT_VERSION = 1
_NOT_DONE = {"data_sub_sample_rate": 0.0, "bad_rows": "stop"}  # what older manifests do not know
_CHECKSUM = "manifest_crc32"  # of everything else in the file; older manifests have none


@dataclass(frozen=True)
class FileFacts:
    """Size, modification time and, for a prepared file, CRC-32 of its bytes."""

    name: str
    size: int
    mtime_ns: int
    crc32: int | None = None

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> FileFacts:
        """Return what a manifest says. KeyError or TypeError if it says something else."""
        _expect(str, found["name"])
        _expect(int, found["size"], found["mtime_ns"])
        _expect((int, type(None)), found["crc32"])
        return cls(found["name"], found["size"], found["mtime_ns"], found["crc32"])

    @classmethod
    def of(cls, path: Path, crc32: int | None = None) -> FileFacts:
        """Read the facts of a file. OSError if it is missing."""
        status = path.stat()
        return cls(path.name, status.st_size, status.st_mtime_ns, crc32)


@dataclass(frozen=True)
class Manifest:
    """What a preparation made. `flags` and `inputs` decide whether it would be made the same again.

    bad_rows: those left out, per file and reason. archive: X.npz, if it was written too.
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
        """Whether the rows were prepared by another program."""
        return "adopted" in self.flags

    def rows(self, split: str) -> int:
        """Return the rows of a split."""
        return self.files[split].size // ROW_BYTES

    def with_archive(self, archive: FileFacts) -> Manifest:
        """Return the same with an archive."""
        return replace(self, archive=archive)

    def write(self, path: Path, temporary_folder: Path) -> None:
        """Write the manifest with its own checksum, atomically; until complete it is in `temporary_folder`."""
        content = asdict(self)
        write_atomically(path, json.dumps({**content, _CHECKSUM: checksum(content)}, indent=1), temporary_folder)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Return the manifest, None if there is none. RunError if it is damaged or of another version."""
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
    def _from_json(cls, found: dict[str, Any], path: Path) -> Manifest:
        """Raise ValueError, KeyError or TypeError for what `write` does not write."""
        if found["format_version"] != FORMAT_VERSION:
            raise RunError(
                f"{path}: format version {found['format_version']}, this program reads {FORMAT_VERSION}"
            )
        if found.pop(_CHECKSUM, None) not in (None, checksum(found)):
            raise ValueError("its contents do not have its checksum")
        if unknown := found.keys() - {known.name for known in fields(cls)}:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        flags, archive = found["flags"], found.get("archive")
        _expect(dict, flags)
        if "adopted" not in flags:
            flags = {**_NOT_DONE, **flags}
            _expect(str, flags["data_set"])
            _expect(int, flags["max_ind_range"])
            _expect((int, float), flags["data_sub_sample_rate"])
        _expect(int, *found["rows_per_day"], *found["counts"])
        if len(found["counts"]) != TABLES:
            raise ValueError(f"{len(found['counts'])} counts; expected {TABLES}")
        files = {split: FileFacts.from_json(found["files"][split]) for split in SPLITS}
        _expect(int, *(facts.crc32 for facts in files.values()))
        bad_rows = found.get("bad_rows", {})
        for reasons in bad_rows.values():
            _expect(int, *reasons.values())
        return cls(
            flags=flags,
            inputs=[FileFacts.from_json(facts) for facts in found["inputs"]],
            rows_per_day=found["rows_per_day"],
            counts=found["counts"],
            files=files,
            bad_rows=bad_rows,
            archive=None if archive is None else FileFacts.from_json(archive),
        )

    def is_finished(self, place: DatasetPaths) -> bool:
        """Whether all files stand at their sizes: the manifest is there first, the files are renamed after."""
        return all(
            place.split(split).is_file() and place.split(split).stat().st_size == self.files[split].size
            for split in SPLITS
        )

    def problem(self, place: DatasetPaths) -> str | None:
        """Compare the files with the manifest; return what is wrong with the first that is not as described.

        A file touched since (copied, for example) is read through and its checksum compared.
        """
        for split in SPLITS:
            path, facts = place.split(split), self.files[split]
            if not path.is_file():
                return f"{path}: no such file, though its manifest {place.manifest} is there"
            found = FileFacts.of(path)
            if found.size != facts.size:
                return f"{path}: {found.size} bytes, its manifest {place.manifest} says {facts.size}"
            if found.mtime_ns != facts.mtime_ns and file_crc32(path) != facts.crc32:
                return (
                    f"{path}: not the file that its manifest {place.manifest} describes (checksum differs); "
                    "remove both to prepare the data again"
                )
        return None


def checksum(content: dict[str, Any]) -> int:
    """Return the CRC-32 of what JSON says, however it is laid out."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _expect(kind: type | tuple[type, ...], *values: object) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{value!r} is a {type(value).__name__}")


def read_counts(path: Path) -> tuple[int, ...]:
    """Return the rows per table from a `*_fea_count.npz` of another program. RunError if it has none."""
    with damage(path, "no counts per column can be read from it"), np.load(path, allow_pickle=False) as found:
        counts = tuple(int(count) for count in found["counts"])
    if len(counts) != TABLES or min(counts) < 1:
        raise RunError(f"{path}: expected {TABLES} counts of at least 1, found {list(counts)}")
    return counts
