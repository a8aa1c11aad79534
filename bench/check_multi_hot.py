"""Compare the tables that expand ids with published facts: python bench/check_multi_hot.py golden.json.

For each table of a benchmark, the file has the number of rows and of ids per sample, and of the drawn ids the sum,
the CRC-32 of their int32 values, and the beginning of the first and the last row. Draws all tables, 5.8 billion
ids at the full size of DLRM-DCNv2, in a few megabytes of memory. Prints a line for each table.
"""

from __future__ import annotations

import checkout  # noqa: F401

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from command_line import script_parser
from mlperf.data.multi_hot import MultiHotShape
from mlperf.settings.kinds import file_name
from mlperf.util.crc32 import bytes_crc32
from mlperf.util.errors import RunError
from mlperf.util.program import run_program


def main() -> None:
    """Print a line for each table. RunError if one differs."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("facts", type=file_name, help="JSON file with multi_hot.benchmark_lookup_tables")
    args = parser.parse_args()
    expected = read_facts(args.facts)
    rows, sizes = (tuple(table[key] for table in expected) for key in ("rows", "multi_hot"))
    start, wrong = time.perf_counter(), []
    found: dict[str, Any] = {}
    table = -1
    for number, piece in MultiHotShape(rows, sizes).pieces():
        if number != table:
            table, found = number, {"sum": 0, "crc32": 0, "first_row": piece[0, 1:].tolist()}
        drawn = np.ascontiguousarray(piece[:, 1:])
        found["sum"] += int(drawn.sum(dtype=np.int64))
        found["crc32"] = bytes_crc32(drawn, found["crc32"])
        if piece[-1, 0] == rows[number] - 1:
            found["last_row"] = piece[-1, 1:].tolist()
            same = agrees(found, expected[number])
            wrong += [] if same else [number]
            seconds = time.perf_counter() - start
            print(f"table {number}: {'same' if same else 'DIFFERENT'} after {seconds:.0f} s", flush=True)
    if wrong:
        raise RunError(f"{args.facts}: tables {wrong} differ")


def read_facts(path: Path) -> list[dict[str, Any]]:
    """Return the facts of the tables, in order."""
    tables: list[dict[str, Any]] = json.loads(path.read_text())["multi_hot"]["benchmark_lookup_tables"]
    return tables


def agrees(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether a table has the expected facts, which may have only the beginning of a row."""
    beginnings = all(found[row][: len(expected[row])] == expected[row] for row in ("first_row", "last_row"))
    return beginnings and found["sum"] == expected["sum"] and f"{found['crc32']:08x}" == expected["crc32"]


if __name__ == "__main__":
    sys.exit(run_program("check_multi_hot.py", main))
