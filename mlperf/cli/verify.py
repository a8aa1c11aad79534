"""Verify prepared data: rows, label rate, index ranges, checksums, manifest against files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.cli.program import program_name, run_program
from mlperf.data.criteo.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO
from mlperf.settings.kinds import file_name
from mlperf.settings.parser import Parser
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures

if TYPE_CHECKING:
    from mlperf.data.criteo.prepared.paths import DatasetPaths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 nothing is wrong, 1 something is, 2 wrong call."""
    name = program_name("verify_data.py")
    return run_program(name, partial(_verify, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument("place", type=file_name, help="X, for X_train.bin, X_test.bin, X_val.bin, X.json")
    parser.add_argument(
        "--raw-data-file", type=file_name, help="prefix of <prefix>_fea_count.npz, without a manifest"
    )
    return parser


def _verify(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)

    from mlperf.data.criteo.prepared.paths import DatasetPaths

    place = DatasetPaths.from_name(args.place)
    with system_failures(place.prefix, "cannot be verified"):
        return verify(place, args.raw_data_file)


def verify(place: DatasetPaths, raw_data_file: Path | None) -> int:
    """Print what the files at a place hold and what is wrong with them; 1 if anything is."""
    import numpy as np

    from mlperf.data.criteo.days import SPLITS
    from mlperf.data.criteo.prepared.dataset import find_prepared
    from mlperf.data.criteo.prepared.manifest import Manifest
    from mlperf.data.criteo.prepared.verify import (
        SplitFacts,
        compare_with_published,
        file_problems,
        is_full_data,
        manifest_problems,
        scan,
    )

    prepared = find_prepared(place, raw_data_file)
    manifest = Manifest.read(place.manifest)
    wrong: list[str] = []
    scanned: list[SplitFacts] = []
    for split in SPLITS:
        path = place.split(split)
        if not path.is_file():
            wrong.append(f"{path}: no such file")
            continue
        facts = scan(path)
        scanned.append(facts)
        rate = facts.clicks / max(1, facts.rows)
        print(f"{path}: {facts.rows:,} rows, {rate:.4%} of label 1, CRC-32 {facts.crc32:08x}")
        wrong += [f"{path}: {text}" for text in file_problems(facts, prepared.counts, manifest, split)]
    if not any(facts.rows for facts in scanned):
        raise RunError(f"{place.prefix}: no rows at all")
    used = np.max([facts.column_max[CRITEO.id_columns] + 1 for facts in scanned if facts.rows], axis=0)
    print("rows per table: " + "-".join(str(count) for count in prepared.counts))
    print("largest index + 1: " + "-".join(str(count) for count in used))
    if manifest is None:
        print(f"no manifest {place.manifest.name}: there are no checksums to compare with")
    else:
        wrong += manifest_problems(place, manifest, [int(largest) for largest in used])
        left_out = sum(sum(reasons.values()) for reasons in manifest.bad_rows.values())
        print(f"manifest {place.manifest}: flags {manifest.flags}; {left_out} bad rows left out")
    if is_full_data(prepared):
        for text, met in compare_with_published(prepared):
            print(f"published: {text}: {'met' if met else 'NOT met'}")
            wrong += [] if met else [f"{place.prefix}: the published figure is not met: {text}"]
    else:
        print("not the whole Terabyte data: nothing published to compare with")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{place.prefix}: {'FAILED' if wrong else 'SUCCESS'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
