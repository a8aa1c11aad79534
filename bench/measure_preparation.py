"""Time the preparation of synthetic text, and a pipeline in polars: python bench/measure_preparation.py.

With --cores=1,2,4, only the first measurement is made, on each of these numbers of cores. With --forms, it is made
alternately of the binary files of DLRM (terabyte), of those of DLRM-DCNv2 (terabyte_dcnv2), of the files of
DLRM-DCNv2's reference (reference), and of the same text with columns that a file describes, its ids as hexadecimal
numbers (columns) or as words (words).

Each measurement runs in a separate process and is timed from the end of the imports to the fsync of the output,
with compiled code cached and the text in the page cache. Prints medians. The comparison requires polars.
"""

from __future__ import annotations

import checkout  # noqa: F401

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from command_line import existing_folder, script_parser
from mlperf.benchmarks import DLRM
from mlperf.data.criteo.sample.generate import SampleSettings, make_sample
from mlperf.data.schema import CRITEO
from mlperf.settings.kinds import at_least, choice
from mlperf.util.program import run_program

ROOT = Path(__file__).resolve().parent.parent
assert DLRM.data.index_limit is not None
LIMIT = DLRM.data.index_limit
TERABYTE_ROWS = DLRM.data.train_samples + DLRM.data.eval_samples + DLRM.data.held_out_samples
LARGE_TABLES = [table for table, rows in enumerate(DLRM.data.table_rows) if rows > 10_000_000]

PREPARE = """
import os, resource, sys, time
from pathlib import Path
if sys.argv[5] == "gzip":
    sys.modules["isal"] = None
from mlperf.settings.dataset import PreparationSettings
from mlperf.data.prepare.pipeline import prepare
if sys.argv[6] == "reference":
    from mlperf.data.prepare.reference.preparation import prepare_reference_files as prepare
described = sys.argv[6] in ("columns", "words")
settings = PreparationSettings(
    "columns" if described else "terabyte" if sys.argv[6] == "terabyte" else "terabyte_dcnv2",
    Path(sys.argv[1]) / ("day_0" if described else "day"), Path(sys.argv[2]), max_ind_range=int(sys.argv[3]),
    randomize=sys.argv[4], reference_files=sys.argv[6] == "reference",
    columns=Path(sys.argv[1]) / f"{sys.argv[6]}.toml" if described else None)
start = time.perf_counter()
made = prepare(settings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - start, peak, "-".join(map(str, made.counts)))
"""

COLUMNS = """
[label]
column = 1
[[dense]]
columns = "2-14"
[[categorical]]
columns = "15-40"
type = "{kind}"
[split]
train = [{train}]
test = ["day_23"]
"""

FORMS = ("terabyte", "terabyte_dcnv2", "reference", "columns", "words")
MIN_ROWS = 24_000


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds, peak resident memory in MB, peak bytes on disk, and rows per table."""

    seconds: float
    memory: float
    disk: int
    counts: str


def main() -> None:
    """Print the table."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument(
        "--rows",
        type=at_least(MIN_ROWS),
        default=8_000_000,
        metavar="N",
        help="total number of rows, 260 bytes of text each; polars needs 1 KB of memory per row",
    )
    parser.add_argument("--repeats", type=at_least(1), default=3, metavar="N", help="number of runs of each")
    parser.add_argument(
        "--folder",
        type=existing_folder,
        metavar="PATH",
        help="working folder (default: the temporary folder of the system)",
    )
    parser.add_argument("--cores", type=core_counts, metavar="N,N,...", help="numbers of cores: 1,2,4,8,16")
    parser.add_argument("--forms", type=forms, metavar="FORM,...", help=f"forms to measure: {','.join(FORMS)}")
    flags = parser.parse_args()
    if flags.forms and flags.cores:
        parser.error("--forms cannot be combined with --cores")
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        folder = Path(name)
        make_sample(SampleSettings(folder, rows=MIN_ROWS, seed=1))
        measure_own(folder, cores, "total", 1)  # compiles
        if flags.cores is not None:
            measure_scaling(folder, cores, flags.cores, flags.rows, flags.repeats)
            return
        if flags.forms is not None:
            measure_forms(folder, cores, flags.forms, flags.rows, flags.repeats)
            return
        print(
            f"{len(cores)} cores, median of {flags.repeats}; rate of text, ratio to polars, memory, disk, Terabyte"
        )
        rows = flags.rows
        text = sum(make_sample(SampleSettings(folder, rows=rows, seed=1)).files.values())
        compare_with_polars(folder, text, rows, cores, flags.repeats)
        for randomize, some in (("total", cores[:1]), ("none", cores)):
            what = f"{rows / 1e6:g} million rows, {randomize}, {len(some)} core{'s' if len(some) > 1 else ''}"
            show(what, text, rows, measure_own(folder, some, randomize, flags.repeats))
        zip_days(folder)
        for unzipper in ("gzip", "isal") if importlib.util.find_spec("isal") else ("gzip",):
            what = f"{rows / 1e6:g} million rows, .gz, unpacked by {unzipper}"
            show(what, text, rows, measure_own(folder, cores, "total", flags.repeats, unzipper))
        text = write_distinct(folder, rows)
        what = f"{rows / 1e6:g} million rows, ids of {len(LARGE_TABLES)} columns random"
        show(what, text, rows, measure_own(folder, cores, "total", flags.repeats))


def core_counts(text: str) -> list[int]:
    """Return the numbers of cores that --cores names. ArgumentTypeError if one is not a number from 1."""
    kind = at_least(1)
    return [kind(count) for count in text.split(",")]


def forms(text: str) -> list[str]:
    """Return the forms that --forms names. ArgumentTypeError if one is unknown."""
    kind = choice(*FORMS)
    return [kind(form) for form in text.split(",")]


def measure_forms(folder: Path, cores: Sequence[int], chosen: Sequence[str], rows: int, repeats: int) -> None:
    """Measure several forms alternately; the ratio is that to the time of the first."""
    text = sum(make_sample(SampleSettings(folder, rows=rows, seed=1)).files.values())
    train = ", ".join(f'"day_{day}"' for day in range(23))
    for form, kind in (("columns", "hexadecimal"), ("words", "word")):
        (folder / f"{form}.toml").write_text(COLUMNS.format(kind=kind, train=train))
    for form in chosen:
        measure_own(folder, cores, "total", 1, form=form)  # compiles
    rounds = [[measure_own(folder, cores, "total", 1, form=form) for form in chosen] for _ in range(repeats)]
    found = [median(measured) for measured in zip(*rounds, strict=True)]
    for form, measured in zip(chosen, found, strict=True):
        what = f"{rows / 1e6:g} million rows, {form}, {len(cores)} cores"
        show(what, text, rows, measured, found[0].seconds / measured.seconds)


def measure_scaling(folder: Path, cores: Sequence[int], counts: Sequence[int], rows: int, repeats: int) -> None:
    """Measure this project on each number of cores; the ratio is that to the time of the first."""
    text = sum(make_sample(SampleSettings(folder, rows=rows, seed=1)).files.values())
    first: float | None = None
    for count in counts:
        if count > len(cores):
            print(f"{count} cores: not measured, because this machine has {len(cores)}")
            continue
        found = measure_own(folder, cores[:count], "total", repeats)
        first = first or found.seconds
        what = f"{rows / 1e6:g} million rows, {count} core{'s' if count > 1 else ''}"
        show(what, text, rows, found, first / found.seconds)


def compare_with_polars(folder: Path, text: int, rows: int, cores: Sequence[int], repeats: int) -> None:
    """Measure this project and polars alternately on the same text, and print both."""
    if importlib.util.find_spec("polars") is None:
        print("polars: not measured, because it is not installed (pip install polars)")
        show(
            f"{rows / 1e6:g} million rows, this project",
            text,
            rows,
            measure_own(folder, cores, "total", repeats),
        )
        return
    mine, theirs = [], []
    for _ in range(repeats):
        mine.append(measure_own(folder, cores, "total", 1))
        program = [
            sys.executable,
            str(ROOT / "bench" / "polars_pipeline.py"),
            str(folder),
            str(folder / "p"),
            str(LIMIT),
        ]
        theirs.append(measure(program, folder, cores))
    polars, project = median(theirs), median(mine)
    if polars.counts != project.counts:
        sys.exit(f"the table sizes differ: {polars.counts} and {project.counts}")
    show(f"{rows / 1e6:g} million rows, polars", text, rows, polars)
    show(f"{rows / 1e6:g} million rows, this project", text, rows, project, polars.seconds / project.seconds)


def measure_own(
    folder: Path,
    cores: Sequence[int],
    randomize: str,
    repeats: int,
    unzipper: str = "isal",
    form: str = "terabyte",
) -> Measured:
    """Return the median of several measurements of this project."""
    prepared = folder / "prepared"
    limit = LIMIT if form == "terabyte" else -1
    command = [sys.executable, "-c", PREPARE, str(folder), str(prepared), str(limit), randomize, unzipper, form]
    return median([measure(command, folder, cores) for _ in range(repeats)])


def median(measured: Sequence[Measured]) -> Measured:
    """Return the measurement with the median time."""
    return sorted(measured, key=lambda one: one.seconds)[len(measured) // 2]


def measure(command: Sequence[str], folder: Path, cores: Sequence[int]) -> Measured:
    """Remove prepared files, run a program, and monitor the disk usage meanwhile."""
    for path in [*folder.glob("prepared*"), *folder.glob("p_*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.sync()
    before, peak, done = used(folder), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, used(folder) - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        finished = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    finally:
        done.set()
        watcher.join()
    seconds, memory, counts = finished.stdout.split()
    return Measured(float(seconds), float(memory), peak, counts)


def used(folder: Path) -> int:
    """Return the bytes allocated under a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def zip_days(folder: Path) -> None:
    """Replace the days with gzip files."""
    for day in range(24):
        path = folder / f"day_{day}"
        with path.open("rb") as text, gzip.open(f"{path}.gz", "wb", compresslevel=6) as zipped:
            shutil.copyfileobj(text, zipped, 1 << 20)
        path.unlink()


def write_distinct(folder: Path, rows: int) -> int:
    """Replace the sample with rows of random ids: below the limit in large tables, below 10,000 in others."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    stream = np.random.default_rng(1)
    rows_per_day, total = -(-rows // 24), 0
    for day in range(24):
        count = min(rows_per_day, rows - day * rows_per_day)
        # A label, integers of 2 digits and ids of 8, each with a separator.
        first_id = 2 + 3 * CRITEO.dense_features
        line = np.full((count, first_id + 9 * CRITEO.tables), ord("\t"), np.uint8)
        line[:, 0] = 48 + stream.integers(0, 2, count)
        digits_of_integers = line[:, 2:first_id].reshape(count, -1, 3)[:, :, :2]
        digits_of_integers[:] = 48 + stream.integers(0, 10, digits_of_integers.shape)
        for table in range(CRITEO.tables):
            ids = stream.integers(0, LIMIT if table in LARGE_TABLES else 10_000, count)
            for digit in range(8):
                line[:, first_id + 9 * table + digit] = digits[ids >> (28 - 4 * digit) & 15]
        line[:, -1] = ord("\n")
        line.tofile(folder / f"day_{day}")
        (folder / f"day_{day}.gz").unlink(missing_ok=True)
        total += line.nbytes
    return total


def show(what: str, text: int, rows: int, found: Measured, ratio: float | None = None) -> None:
    """Print a line of the table."""
    hours = found.seconds * TERABYTE_ROWS / rows / 3600
    print(
        f"{what:44}{text / found.seconds / 1e6:7.0f} MB/s{'' if ratio is None else f'{ratio:.1f}':>6}"
        f"{found.memory:8,.0f} MB{found.disk / rows:6.0f} bytes a row{hours:7.2f} h",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(run_program("measure_preparation.py", main))
