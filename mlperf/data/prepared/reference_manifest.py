"""What a preparation with --reference-files records beside the files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlperf.benchmarks.data_sets import TERABYTE_DAYS, TERABYTE_DCNV2
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import CHECKSUM, MAX_BYTES, find_difference, json_crc32
from mlperf.data.prepared.manifest_schema import bad_rows, facts_of_file, facts_of_inputs
from mlperf.data.schema import CRITEO, MAX_TABLE_ROWS
from mlperf.util.errors import RunError
from mlperf.util.files import read_regular, write_atomically
from mlperf.util.printable import shown
from mlperf.util.strict_json import SchemaError, fields, items, parse_json, refuse, whole

MANIFEST_NAME = "reference_files.json"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class ReferenceManifest:
    """Result of a preparation.

    flags, inputs: flags and input files; preparations in which both are equal give the same result.
    rows_per_day: rows of each day. counts: number of distinct ids of each column.
    smallest_integers: the smallest integer of each day.
    files: the 72 files. bad_rows: number of bad rows left out, by file name and reason.
    """

    flags: dict[str, Any]
    inputs: list[FileFacts]
    rows_per_day: list[int]
    counts: list[int]
    smallest_integers: list[int]
    files: list[FileFacts]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    format_version: int = _FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Write the manifest to a folder, with its own checksum, atomically."""
        content = asdict(self)
        write_atomically(folder / MANIFEST_NAME, json.dumps({**content, CHECKSUM: json_crc32(content)}, indent=1))

    @classmethod
    def read(cls, folder: Path) -> ReferenceManifest | None:
        """Read the manifest of a folder. None if there is none. RunError if it is damaged."""
        path = folder / MANIFEST_NAME
        try:
            content = parse_json(read_regular(path, MAX_BYTES))
            if isinstance(content, dict) and content.pop(CHECKSUM, None) != json_crc32(content):
                raise SchemaError("its checksum does not match")
            return cls(**_checked(content))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
        except SchemaError as error:
            raise RunError(f"{path}: not a manifest of this program, or damaged: {error}") from None

    def find_problem(self, folder: Path) -> str | None:
        """Compare the files with the manifest. Return the first difference, None if there is none.

        The checksum of a file is computed only if its modification time has changed, for example by copying.
        """
        for facts in self.files:
            if problem := find_difference(folder / facts.name, facts, folder / MANIFEST_NAME):
                return problem
        return None


def _checked(content: object) -> dict[str, Any]:
    names = ("flags", "inputs", "rows_per_day", "counts", "smallest_integers", "files", "bad_rows")
    entries = fields(content, "it", ("format_version", *names))
    whole(entries["format_version"], "format_version", _FORMAT_VERSION, _FORMAT_VERSION)
    flags = fields(entries["flags"], "flags", ("data_set", "reference_files", "bad_rows"))
    if flags["bad_rows"] not in ("stop", "skip"):
        refuse("flags.bad_rows", flags["bad_rows"], "'stop' or 'skip'")
    if flags["data_set"] != TERABYTE_DCNV2.name or flags["reference_files"] is not True:
        raise SchemaError(f"flags are those of data set {shown(flags['data_set'])}")
    days, tables, int32 = [TERABYTE_DAYS], [CRITEO.tables], (-(2**31), 2**31 - 1)
    numbers = {
        "rows_per_day": (days, (1, 2**32)),
        "counts": (tables, (1, MAX_TABLE_ROWS)),
        "smallest_integers": (days, int32),
    }
    lists = {
        name: [whole(value, name, *limits) for value in items(entries[name], name, lengths)]
        for name, (lengths, limits) in numbers.items()
    }
    files = items(entries["files"], "files", [3 * TERABYTE_DAYS])
    return {
        "flags": flags,
        "inputs": facts_of_inputs(entries["inputs"]),
        "files": [facts_of_file(each, f"files[{n}]", has_checksum=True) for n, each in enumerate(files)],
        "bad_rows": bad_rows(entries["bad_rows"]),
        **lists,
    }
