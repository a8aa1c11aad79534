"""Verify prepared data: number of rows, label rate, index ranges, checksums and manifest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.data.criteo.prepared.paths import DatasetPaths
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import file_prefix
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures
from mlperf.util.program import program_name, run_program

if TYPE_CHECKING:
    from mlperf.data.criteo.prepared.dataset import PreparedData
    from mlperf.data.criteo.prepared.manifest import Manifest
    from mlperf.data.criteo.prepared.verify import SplitFacts

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 valid, 1 problems found, 2 usage error."""
    name = program_name("verify_data.py")
    return run_program(name, partial(_verify, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument(
        "prefix", type=file_prefix, help="prefix X of X_train.bin, X_test.bin, X_val.bin and X.json"
    )
    parser.add_argument(
        "--raw-data-file",
        type=file_prefix,
        help="raw data to compare with the manifest; without a manifest: prefix of the <prefix>_fea_count.npz "
        "with the table sizes",
    )
    return parser


def _verify(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    paths = DatasetPaths.from_name(args.prefix, "prefix")
    with system_failures(paths.prefix, "cannot be verified"):
        return verify(paths, args.raw_data_file)


def verify(paths: DatasetPaths, raw_data_file: Path | None) -> int:
    """Print a summary of the files of a data set and log all problems; return 1 if there are problems, else 0."""
    import numpy as np

    from mlperf.data.criteo.prepared.dataset import find_prepared
    from mlperf.data.criteo.prepared.origin import compare_raw_data
    from mlperf.data.schema import CRITEO

    prepared, manifest = find_prepared(paths, raw_data_file)
    difference = None if raw_data_file is None else compare_raw_data(prepared, raw_data_file)
    scanned, problems = _scan_splits(paths, prepared, manifest)
    if not scanned:
        raise RunError(f"{paths.prefix}: no rows at all")
    used = np.max([facts.column_max[CRITEO.id_columns] + 1 for facts in scanned], axis=0)
    print("rows per table: " + "-".join(str(count) for count in prepared.counts))
    print("largest index + 1: " + "-".join(str(count) for count in used))
    problems += _compare_with_manifest(paths, manifest, [int(rows) for rows in used])
    problems += _compare_with_published(paths, prepared)
    problems += [] if difference is None else [difference.text]
    for problem in problems:
        _log.error("%s", problem)
    print(f"{paths.prefix}: {'FAILED' if problems else 'SUCCESS'}")
    return 1 if problems else 0


def _scan_splits(
    paths: DatasetPaths, prepared: PreparedData, manifest: Manifest | None
) -> tuple[list[SplitFacts], list[str]]:
    """Read each split and print a line about it. Return the facts of the splits with rows, and the problems."""
    from mlperf.data.criteo.days import SPLITS
    from mlperf.data.criteo.prepared.verify import file_problems, scan
    from mlperf.data.watched_file import WatchedFile

    scanned: list[SplitFacts] = []
    problems: list[str] = []
    for split in SPLITS:
        path = paths.split(split)
        if split not in prepared.statuses:
            problems.append(f"{path}: no such file")
            continue
        facts = scan(WatchedFile(path, prepared.statuses[split]))
        scanned += [facts] if facts.rows else []
        rate = facts.clicks / max(1, facts.rows)
        print(f"{path}: {facts.rows:,} rows, {rate:.4%} of label 1, CRC-32 {facts.crc32:08x}")
        if facts.rows and not facts.bad_labels and facts.clicks in (0, facts.rows):
            _log.warning("%s: all labels are %d, for which the AUC is undefined", path, rate)
        problems += [f"{path}: {text}" for text in file_problems(facts, prepared.counts, manifest, split)]
    return scanned, problems


def _compare_with_manifest(paths: DatasetPaths, manifest: Manifest | None, rows_used: list[int]) -> list[str]:
    """Print a summary of the manifest and return its problems."""
    from mlperf.data.criteo.prepared.verify import manifest_problems

    if manifest is None:
        print(f"no manifest {paths.manifest.name}: there are no checksums to compare with")
        return []
    skipped = sum(sum(reasons.values()) for reasons in manifest.bad_rows.values())
    print(f"manifest {paths.manifest}: flags {manifest.flags}; {skipped} bad rows left out")
    return manifest_problems(paths, manifest, rows_used)


def _compare_with_published(paths: DatasetPaths, prepared: PreparedData) -> list[str]:
    """Print the comparison with the published figures of the full Terabyte data; return the differences."""
    from mlperf.data.criteo.prepared.verify import compare_with_published, is_full_data

    if not is_full_data(prepared):
        print("not the whole Terabyte data: nothing published to compare with")
        return []
    figures = compare_with_published(prepared)
    for text, met in figures:
        print(f"published: {text}: {'met' if met else 'NOT met'}")
    return [f"{paths.prefix}: the published figure is not met: {text}" for text, met in figures if not met]


if __name__ == "__main__":
    sys.exit(main())
