"""Verify prepared data: number of rows, label rate, index ranges, checksums and manifest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.benchmarks import dashed
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import file_name, file_prefix, prefix_or_folder
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.program import program_name, run_program

if TYPE_CHECKING:
    from mlperf.data.prepared.dataset import PreparedData
    from mlperf.data.prepared.manifest import Manifest
    from mlperf.data.prepared.reference_files import ReferenceFiles
    from mlperf.data.prepared.verify import SplitFacts
    from mlperf.data.prepared.verify_reference import ReferenceFacts

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 valid, 1 problems found, 2 usage error."""
    name = program_name("verify_data.py")
    return run_program(name, partial(_verify, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument(
        "prefix",
        type=prefix_or_folder,
        help="prefix X of X_train.bin, X_test.bin, X_val.bin and X.json, or the folder of the files "
        "day_0_dense.npy, day_0_labels.npy, ... of the DLRM-DCNv2 reference",
    )
    parser.add_argument(
        "--raw-data-file",
        type=file_prefix,
        help="raw data to compare with the manifest; without a manifest: prefix of the <prefix>_fea_count.npz "
        "with the table sizes",
    )
    parser.add_argument(
        "--checksums",
        type=file_name,
        action="append",
        help="list with the MD5 sums of files of the DLRM-DCNv2 reference, as md5sum writes it; may be repeated",
    )
    return parser


def _verify(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    if reference_prefix(args.prefix) is not None:
        with system_failures(args.prefix, "cannot be verified"):
            return verify_reference(args.prefix, args.checksums or [], args.raw_data_file)
    if args.checksums is not None:
        raise UsageError(
            f"--checksums={args.checksums[0]} requires a folder with day_0_dense.npy, ...; other prepared data "
            "has checksums in its manifest"
        )
    paths = DatasetPaths.from_name(args.prefix, "prefix")
    with system_failures(paths.prefix, "cannot be verified"):
        return verify(paths, args.raw_data_file)


def verify(paths: DatasetPaths, raw_data_file: Path | None) -> int:
    """Print a summary of the files of a data set and log all problems; return 1 if there are problems, else 0."""
    from mlperf.data.prepared.dataset import find_prepared
    from mlperf.data.prepared.origin import compare_raw_data
    from mlperf.data.prepared.verify import used_rows

    prepared, manifest = find_prepared(paths, raw_data_file)
    difference = None if raw_data_file is None else compare_raw_data(prepared, raw_data_file)
    scanned, problems = _scan_splits(paths, prepared, manifest)
    if not scanned:
        raise RunError(f"{paths.prefix}: no rows at all")
    print("rows per table: " + dashed(prepared.table_rows))
    print("largest index + 1: " + dashed(used_rows(scanned)))
    problems += _compare_with_manifest(paths, manifest, prepared, scanned)
    problems += _compare_with_published(paths.prefix, prepared)
    problems += [] if difference is None else [difference.text]
    return _report(paths.prefix, problems)


def verify_reference(path: Path, lists: Sequence[Path], raw_data_file: Path | None = None) -> int:
    """Do the same with files of the DLRM-DCNv2 reference. lists: files with MD5 sums.

    UsageError if raw data is given and no manifest names that of the files.
    """
    from mlperf.data.criteo.days import SPLITS
    from mlperf.data.prepared.dataset import describe_reference
    from mlperf.data.prepared.origin import compare_raw_data
    from mlperf.data.prepared.reference_files import ReferenceFiles
    from mlperf.data.prepared.reference_manifest import MANIFEST_NAME
    from mlperf.data.prepared.verify_reference import (
        checksum_problems,
        compare_ids_with_published,
        damaged_archives,
        damaged_files,
        read_checksums,
        scan_reference,
    )

    checksums = read_checksums(lists)
    files = ReferenceFiles.read(reference_prefix(path) or path)
    prepared = describe_reference(files)
    if raw_data_file is not None and not prepared.inputs:
        raise UsageError(f"--raw-data-file={raw_data_file}: {path} has no manifest that names its raw data")
    difference = None if raw_data_file is None else compare_raw_data(prepared, raw_data_file)
    kinds = {name.split("_", 2)[2] for name in files.statuses}
    print(f"{path}: {len(files.statuses)} files, {', '.join(sorted(kinds))} of {len(files.rows_per_day)} days")
    facts = [scan_reference(files, split) for split in SPLITS]
    _print_contents(path, files, facts)
    problems = [problem for of_split in facts for problem in of_split.problems()]
    if prepared.checksums:
        print(f"manifest {MANIFEST_NAME}: checksums of {len(prepared.checksums)} files")
        problems += damaged_files(files, prepared.checksums)
    problems += damaged_archives(files, but=checksums)
    if lists:
        known = [name for name in files.statuses if name in checksums]
        print(f"checksums: {len(known)} of {len(files.statuses)} files are in the list")
        problems += checksum_problems(files, checksums)
        if not known:
            problems.append(f"{lists[0]}: has no checksum of a file in {path}")
    published = compare_ids_with_published(files, facts)
    problems += _compare_with_published(path, prepared, published)
    problems += [] if difference is None else [difference.text]
    return _report(path, problems)


def _print_contents(path: Path, files: ReferenceFiles, facts: Sequence[ReferenceFacts]) -> None:
    """Print what the splits of `files` contain."""
    from mlperf.data.criteo.days import SPLITS

    for split, of_split in zip(SPLITS, facts, strict=True):
        rate = of_split.clicks / max(1, of_split.rows)
        print(f"{path}: {split}: {of_split.rows:,} rows, {rate:.4%} of label 1")
        if of_split.rows and of_split.clicks in (0, of_split.rows):
            _log.warning("%s: all labels of %s are %d, for which the AUC is undefined", path, split, rate)
    if files.ids_per_table is not None:
        print("ids per table: " + dashed(files.ids_per_table))
    largest = (max(int(each.id_max[table]) for each in facts) for table in range(len(facts[0].id_max)))
    print("largest index + 1: " + dashed(each + 1 for each in largest))


def _report(what: Path, problems: Sequence[str]) -> int:
    """Log the problems, print the result and return the exit status."""
    for problem in problems:
        _log.error("%s", problem)
    print(f"{what}: {'FAILED' if problems else 'SUCCESS'}")
    return 1 if problems else 0


def _scan_splits(
    paths: DatasetPaths, prepared: PreparedData, manifest: Manifest | None
) -> tuple[list[SplitFacts], list[str]]:
    """Read each split and print a line about it. Return the facts of the splits with rows, and the problems."""
    from mlperf.data.criteo.days import SPLITS
    from mlperf.data.prepared.verify import file_problems, scan
    from mlperf.data.watched_file import WatchedFile

    scanned: list[SplitFacts] = []
    problems: list[str] = []
    for split in SPLITS:
        path = paths.split(split)
        if split not in prepared.statuses:
            problems.append(f"{path}: no such file")
            continue
        file = WatchedFile(path, prepared.statuses[split])
        facts = scan(file, prepared.schema, stores_floats=prepared.columns.stores_floats)
        scanned += [facts] if facts.rows else []
        rate = facts.clicks / max(1, facts.rows)
        print(f"{path}: {facts.rows:,} rows, {rate:.4%} of label 1, CRC-32 {facts.crc32:08x}")
        if facts.rows and not facts.bad_labels and facts.clicks in (0, facts.rows):
            _log.warning("%s: all labels are %d, for which the AUC is undefined", path, rate)
        problems += [f"{path}: {text}" for text in file_problems(facts, prepared, manifest, split)]
    return scanned, problems


def _compare_with_manifest(
    paths: DatasetPaths, manifest: Manifest | None, prepared: PreparedData, scanned: list[SplitFacts]
) -> list[str]:
    """Print a summary of the manifest and return its problems."""
    from mlperf.data.prepared.verify import manifest_problems

    if manifest is None:
        print(f"no manifest {paths.manifest.name}: there are no checksums to compare with")
        return []
    skipped = sum(sum(reasons.values()) for reasons in manifest.bad_rows.values())
    print(f"manifest {paths.manifest}: flags {manifest.flags}; {skipped} bad rows left out")
    return manifest_problems(paths, manifest, prepared, scanned)


def _compare_with_published(
    what: Path, prepared: PreparedData, others: Sequence[tuple[str, bool]] = ()
) -> list[str]:
    """Print the comparison with the published figures of the full Terabyte data; return the differences.

    others: further figures of the full data and whether they are met.
    """
    from mlperf.data.prepared.verify import compare_with_published, is_full_data

    if prepared.traits is not None and prepared.traits.has_columns_file:
        return []
    if not is_full_data(prepared):
        print("not the whole Terabyte data: nothing published to compare with")
        return []
    figures = [*compare_with_published(prepared), *others]
    for text, met in figures:
        print(f"published: {text}: {'met' if met else 'NOT met'}")
    return [f"{what}: the published figure is not met: {text}" for text, met in figures if not met]


if __name__ == "__main__":
    sys.exit(main())
