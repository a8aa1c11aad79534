"""Compare this working tree with an earlier commit: python bench/compare_commits.py COMMIT [--time].

Without --time, a fixed set of small runs is made with both, and their results are compared: exit status, printed
lines (without times), compliance log (without times and source lines), checkpoints (all numbers, bit for bit) and
prepared data (byte for byte). The exit status is 1 if anything differs; --expected names intended differences.
Differences in stderr are shown but do not count.

With --time, the training step and the preparation are timed alternately; the medians and ratio are printed.
"""

from __future__ import annotations

import checkout  # noqa: F401

import difflib
import fnmatch
import io
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from command_line import script_parser
from compared_files import facts_of_file
from mlperf.benchmarks import DLRM, KAGGLE
from mlperf.settings.kinds import at_least
from mlperf.util.program import run_program

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "test" / "golden"
TRAINER, PREPARE, SAMPLE = "dlrm_s_pytorch.py", "tools/prepare_criteo.py", "tools/make_sample.py"
_TIME = re.compile(r"-?[\d.]+ ms/it")
_PROGRESS = "preparing "  # lines on stderr with rates
_MAX_SHOWN = 6  # lines of a difference


@dataclass(frozen=True)
class Call:
    """One call of a program, in the folder of its case."""

    program: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Calls in a separate folder, in order. Their output and the files they write there are compared."""

    name: str
    calls: tuple[Call, ...]


@dataclass
class Outputs:
    """Results of a case: named facts, which are compared for equality, and the lines on stderr."""

    facts: dict[str, object] = field(default_factory=dict)
    stderr: list[str] = field(default_factory=list)
    status: int = 0
    events: int = 0
    numbers: int = 0


def cases() -> Iterator[Case]:
    """Yield the fixed set of runs. Later cases use data prepared by earlier ones."""
    text = {"terabyte": GOLDEN / "terabyte" / "day", "kaggle": GOLDEN / "kaggle" / "train.txt"}

    def prepare(data_set: str, *flags: str) -> Call:
        names = (f"--data-set={data_set}", f"--raw-data-file={text[data_set]}", "--processed-data-file=data")
        return Call(PREPARE, (*names, *flags))

    yield Case("terabyte", (prepare("terabyte", *DLRM.data.flags[1:], "--data-randomize=none"),))
    yield Case("kaggle", (prepare("kaggle", "--data-randomize=none"),))
    yield Case("shuffle", (prepare("terabyte", "--max-ind-range=1000", "--data-sub-sample-rate=0.5"),))
    yield Case("shuffle days", (prepare("terabyte", "--data-randomize=day", "--numpy-rand-seed=5"),))
    make_sample = Call(SAMPLE, ("--folder=.", "--rows=24000"))
    flags_of_data = (*DLRM.data.flags, "--raw-data-file=day", "--processed-data-file=data")
    yield Case("sample", (make_sample, Call(PREPARE, flags_of_data)))

    yield Case("random data", (_train("--mini-batch-size=2 --data-size=6 --nepochs=2"),))
    yield Case("debug mode", (_train("--mini-batch-size=2 --data-size=5 --debug-mode --learning-rate=0.1"),))
    gaussian = "--rand-data-dist=gaussian --arch-embedding-size=50-9-3 --num-indices-per-lookup-fixed"
    yield Case("gaussian data", (_train(f"--mini-batch-size=8 --data-size=64 --print-freq=2 {gaussian}"),))

    for name, run in json.loads((GOLDEN / "runs.json").read_text()).items():
        flags = [flag for flag in shlex.split(run["flags"]) if not flag.startswith("--load-model")]
        flags += ["--load-model=../golden sgd/sgd.pt"] * ("--inference-only" in flags)
        yield Case(f"golden {name}", (Call(TRAINER, (*flags, f"--processed-data-file=../{run['data']}/data")),))
        if name == "sgd":
            base = [flag for flag in flags if not flag.startswith("--save-model")]
    base.append("--processed-data-file=../terabyte/data")
    for name, extra in (
        ("sum", "--arch-interaction-op=sum"),
        ("mse, tanh", "--loss-function=mse --activation-function=tanh"),
        ("accumulation", "--mlperf-grad-accum-iter=3 --nepochs=2"),
        ("batch order", "--mlperf-bin-shuffle --numpy-rand-seed=7 --embedding-init=device"),
        ("quotient, adagrad", "--qr-flag --qr-threshold=100 --qr-operation=add --optimizer=adagrad"),
        ("resume", "--nepochs=2 --load-model=../golden\\ sgd/sgd.pt --save-model=next.pt"),
        ("4-bit tables", "--inference-only --load-model=../golden\\ sgd/sgd.pt --quantize-emb-with-bit=4"),
    ):
        yield Case(name, (Call(TRAINER, (*base, *shlex.split(extra))),))
    yield from _sample_cases()


def _sample_cases() -> Iterator[Case]:
    """Yield runs of the benchmark and of the Kaggle network on the sample."""
    schedule = "--lr-num-warmup-steps=5 --lr-decay-start-step=20 --lr-num-decay-steps=30"
    common = (
        f"--data-generation=dataset --processed-data-file=../sample/data --mini-batch-size=256 --test-freq=40 "
        f"--num-batches=80 --print-freq=10 --print-time --learning-rate=0.15 --mlperf-logging {schedule}"
    )
    for name, flags in (
        ("benchmark fp32", (*DLRM.flags, "--mlperf-auc-threshold=0.6", "--save-model=model.pt")),
        ("benchmark bf16", (*DLRM.network.flags, "--precision=bf16", "--mlperf-edition=1.0.0")),
        ("kaggle network bf16", (*KAGGLE.network.flags, "--data-set=terabyte", "--precision=bf16")),
    ):
        yield Case(name, (Call(TRAINER, (*flags, *common.split())),))


def _train(flags: str) -> Call:
    return Call(TRAINER, tuple(flags.split()))


def run_case(tree: Path, case: Case, folder: Path) -> Outputs:
    """Run the calls of a case with the programs of a source tree and return their outputs."""
    folder.mkdir()
    outputs = Outputs()
    for number, call in enumerate(case.calls):
        done = start(tree, call, folder)
        lines = [_TIME.sub("# ms/it", line) for line in done.stdout.splitlines()]
        outputs.facts |= {f"status {number}": done.returncode, f"stdout {number}": lines}
        outputs.status = max(outputs.status, abs(done.returncode))
        outputs.stderr += [line for line in done.stderr.splitlines() if not line.startswith(_PROGRESS)]
    for path in sorted(folder.iterdir()):
        found = facts_of_file(path)
        outputs.facts |= found.facts
        outputs.events += found.events
        outputs.numbers += found.numbers
    return outputs


def start(tree: Path, call: Call, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program and wait for it.

    The caches of compiled loops are in the folder above, so that each source tree begins without any: a run that
    compiles its loops may round differently from one that loads them.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(tree / call.program), *call.flags],
        cwd=folder,
        env={**kept, "NUMBA_CACHE_DIR": str(folder.parent / f"compiled_{tree.name}")},
        capture_output=True,
        text=True,
        check=False,
    )


def extract(commit: str, folder: Path) -> None:
    """Write the files of a commit to a folder. Exits if there is no such commit."""
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"compare_commits.py: error: {commit}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def compare(old: Outputs, new: Outputs, expected: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a description of each difference, and the names of the expected ones."""
    found, intended = [], []
    for name in dict.fromkeys([*old.facts, *new.facts]):
        before, after = old.facts.get(name, "missing"), new.facts.get(name, "missing")
        if before == after:
            continue
        if any(fnmatch.fnmatch(name, pattern) for pattern in expected):
            intended.append(name)
        else:
            found.append(f"{name}: {_difference(before, after)}")
    return found, intended


def _difference(before: object, after: object) -> str:
    if isinstance(before, list) and isinstance(after, list):
        lines = list(difflib.unified_diff([str(x) for x in before], [str(x) for x in after], n=0, lineterm=""))[2:]
        more = len(lines) - _MAX_SHOWN
        shown = [f"\n    {line[:200]}" for line in lines[:_MAX_SHOWN]]
        return "".join(shown) + (f"\n    ... {more} more lines" if more > 0 else "")
    return f"{str(before)[:80]} before, {str(after)[:80]} now"


def compare_runs(commit: str, expected: Sequence[str], only: str) -> bool:
    """Run all cases with both, print a row for each, and return whether all are equal."""
    equal = True
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        trees = {"before": scratch / "tree", "now": ROOT}
        extract(commit, trees["before"])
        for side in trees:
            (scratch / side).mkdir()
        print(f"compared with {commit}")
        print(f"{'case':24}{'status':>8}{'losses':>8}{'lines':>8}{'events':>8}{'numbers':>14}")
        for case in cases():
            is_input = case.calls[0].program != TRAINER or case.name == "golden sgd"
            if not (only in case.name or is_input):
                continue
            outputs = {side: run_case(path, case, scratch / side / case.name) for side, path in trees.items()}
            found, intended = compare(outputs["before"], outputs["now"], expected)
            if outputs["before"].status != 0:
                found.append("the run with the earlier commit failed: nothing was compared")
            print(_row(case.name, outputs["now"]), "DIFFERENT" if found else "equal", flush=True)
            for text in found:
                print(f"  {text}")
            if intended:
                print(f"  different as expected: {', '.join(intended)}")
            if outputs["before"].stderr != outputs["now"].stderr:
                print(f"  not counted: stderr: {_difference(outputs['before'].stderr, outputs['now'].stderr)}")
            equal = equal and not found
    return equal


def _row(name: str, outputs: Outputs) -> str:
    """Return the start of a row: the exit status, and how many items of each kind were compared."""
    printed = [line for key, lines in outputs.facts.items() if key.startswith("stdout") for line in _lines(lines)]
    losses = sum(", loss " in line for line in printed)
    return f"{name:24}{outputs.status:>8}{losses:>8}{len(printed):>8}{outputs.events:>8}{outputs.numbers:>14,}  "


def _lines(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def time_both(commit: str, rounds: int, rows: int) -> None:
    """Time the training step and the preparation of both alternately; print the medians and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name) / "work"
        scratch.mkdir()
        trees = {"before": scratch.parent / "tree", "now": ROOT}
        extract(commit, trees["before"])
        prepare = f"--data-set=terabyte --raw-data-file=day --max-ind-range={DLRM.data.index_limit}".split()
        preparation = Call(PREPARE, (*prepare, "--processed-data-file=data"))
        must_start(ROOT, Call(SAMPLE, ("--folder=.", f"--rows={rows}")), scratch)
        must_start(trees["before"], preparation, scratch)  # later versions read what earlier ones prepared

        def prepare_again(tree: Path) -> float:
            for path in scratch.glob("again*"):
                path.unlink()
            begin = time.perf_counter()
            must_start(tree, Call(PREPARE, (*prepare, "--processed-data-file=again")), scratch)
            return time.perf_counter() - begin

        print(f"{f'medians of {rounds} rounds':34}{commit[:12]:>14}{'now':>10}{'ratio':>8}")
        for title, flags, batches in (
            ("Kaggle network, batch 128, ms", (*KAGGLE.network.flags, "--mini-batch-size=128"), 1000),
            ("benchmark, batch 2048, ms", (*DLRM.network.flags, "--mini-batch-size=2048"), 50),
        ):
            call = _timed_training(flags, batches)
            take_turns(title, trees, rounds, partial(step_time, call=call, folder=scratch))
        take_turns(f"preparation of {rows:,} rows, s", trees, rounds, prepare_again)


def _timed_training(flags: Sequence[str], batches: int) -> Call:
    data = "--data-generation=dataset --data-set=terabyte --processed-data-file=data"
    length = f"--num-batches={batches} --print-freq={batches // 10} --print-time --learning-rate=0.01"
    return Call(TRAINER, (*flags, *data.split(), *length.split()))


def step_time(tree: Path, call: Call, folder: Path) -> float:
    """Return the median of the ms per iteration that a run prints, without the first line."""
    times = [float(text.split()[0]) for text in _TIME.findall(must_start(tree, call, folder).stdout)]
    return statistics.median(times[1:])


def must_start(tree: Path, call: Call, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program; exit with its error if it fails."""
    done = start(tree, call, folder)
    if done.returncode != 0:
        sys.exit(f"compare_commits.py: error: {tree / call.program}: status {done.returncode}\n{done.stderr}")
    return done


def take_turns(title: str, trees: Mapping[str, Path], rounds: int, measure: Callable[[Path], float]) -> None:
    """Measure both alternately, after an uncounted warm-up, and print a row."""
    taken: dict[str, list[float]] = {side: [] for side in trees}
    for number in range(rounds + 1):
        for side, tree in trees.items():
            value = measure(tree)
            if number > 0:
                taken[side].append(value)
    before, now = (statistics.median(values) for values in taken.values())
    print(f"{title:34}{before:>14.3f}{now:>10.3f}{now / before:>8.3f}", flush=True)


def main() -> int:
    """Compare or time. Returns 1 if there is an unexpected difference."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("commit", help="the earlier commit, in any form that git accepts")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the cases whose names contain TEXT")
    parser.add_argument(
        "--expected",
        action="append",
        default=[],
        metavar="PATTERN",
        help="names of facts that may differ, as printed before the colon; may contain *; may be repeated",
    )
    parser.add_argument("--time", action="store_true", help="time both instead of comparing their outputs")
    parser.add_argument("--rounds", type=at_least(1), default=7, metavar="N", help="with --time: number of rounds")
    parser.add_argument(
        "--rows", type=at_least(24_000), default=1_000_000, metavar="N", help="with --time: rows of text"
    )
    flags = parser.parse_args()
    if flags.time:
        time_both(flags.commit, flags.rounds, flags.rows)
        return 0
    equal = compare_runs(flags.commit, flags.expected, flags.only)
    print("nothing differs" if equal else "something differs")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(run_program("compare_commits.py", main))
