"""The manifest beside the prepared files: what they hold and what they were made from."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.data.criteo.checksum import file_crc32
from mlperf.data.criteo.row_format import ROW_BYTES, TABLES
from mlperf.errors import RunError

FORMAT_VERSION = 1
_NOT_DONE = {"data_sub_sample_rate": 0.0, "bad_rows": "stop"}  # what older manifests do not know
SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class Place:
    """Where prepared data is: X.npz, X.bin and X all stand for X_train.bin, X_test.bin, X_val.bin, X.json."""

    prefix: Path

    @classmethod
    def named(cls, processed_data_file: Path) -> Place:
        """Return the place that `processed_data_file` names."""
        if processed_data_file.suffix in (".npz", ".bin"):
            processed_data_file = processed_data_file.with_suffix("")
        return cls(processed_data_file)

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.beside(".json")

    @property
    def preparation(self) -> Path:
        """The folder that a preparation works in, gone when it is finished."""
        return self.beside(".preparation")

    def split(self, name: str) -> Path:
        """Return the binary file of a split: train, test or val."""
        return self.beside(f"_{name}.bin")

    def beside(self, ending: str) -> Path:
        """Return the file whose name goes on with `ending`."""
        return self.prefix.with_name(self.prefix.name + ending)


@dataclass(frozen=True)
class FileFacts:
    """Size, modification time and, for a prepared file, CRC-32 of its bytes."""

    name: str
    size: int
    mtime_ns: int
    crc32: int | None = None

    @classmethod
    def of(cls, path: Path, crc32: int | None = None) -> FileFacts:
        """Read the facts of a file. RunError if it is missing."""
        try:
            status = path.stat()
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(path.name, status.st_size, status.st_mtime_ns, crc32)


@dataclass(frozen=True)
class Manifest:
    """What a preparation made. `flags` and `inputs` decide whether it would be made the same again."""

    flags: dict[str, Any]
    inputs: list[FileFacts]
    rows_per_day: list[int]
    counts: list[int]
    files: dict[str, FileFacts]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)  # left out, per file and reason
    format_version: int = FORMAT_VERSION

    @property
    def adopted(self) -> bool:
        """Whether the rows were prepared by another program."""
        return "adopted" in self.flags

    def rows(self, split: str) -> int:
        """Return the rows of a split."""
        return self.files[split].size // ROW_BYTES

    def write(self, path: Path) -> None:
        """Write the manifest whole or not at all."""
        write_whole(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Return the manifest, None if there is none. RunError if it is damaged or of another version."""
        try:
            found = json.loads(path.read_text())
            if found["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{path}: format version {found['format_version']}, this program reads {FORMAT_VERSION}"
                )
            return cls(
                flags=found["flags"] if "adopted" in found["flags"] else {**_NOT_DONE, **found["flags"]},
                inputs=[FileFacts(**facts) for facts in found["inputs"]],
                rows_per_day=found["rows_per_day"],
                counts=found["counts"],
                files={split: FileFacts(**found["files"][split]) for split in SPLITS},
                bad_rows=found.get("bad_rows", {}),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: damaged manifest ({error!r}); remove it to prepare the data again") from None

    def is_finished(self, place: Place) -> bool:
        """Whether all files stand at their sizes: the manifest is there first, the files are renamed after."""
        return all(
            place.split(split).is_file() and place.split(split).stat().st_size == self.files[split].size
            for split in SPLITS
        )

    def verify(self, place: Place) -> None:
        """Compare the files with the manifest. RunError for a file that is not the one it describes.

        A file touched since (copied, for example) is read through and its checksum compared.
        """
        for split in SPLITS:
            path, facts = place.split(split), self.files[split]
            found = FileFacts.of(path)
            if found.size != facts.size:
                raise RunError(f"{path}: {found.size} bytes, its manifest {place.manifest} says {facts.size}")
            if found.mtime_ns != facts.mtime_ns and file_crc32(path) != facts.crc32:
                raise RunError(
                    f"{path}: not the file that its manifest {place.manifest} describes (checksum differs); "
                    "remove both to prepare the data again"
                )


def read_counts(path: Path) -> tuple[int, ...]:
    """Return the rows per table from a `*_fea_count.npz` of another program. RunError if it has none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            counts = tuple(int(count) for count in found["counts"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: no counts per column can be read from it ({error})") from None
    if len(counts) != TABLES or min(counts) < 1:
        raise RunError(f"{path}: expected {TABLES} counts of at least 1, found {list(counts)}")
    return counts


def write_whole(path: Path, contents: str | bytes) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(contents.encode() if isinstance(contents, str) else contents)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
