"""The edition and the division of a submission, where the submitter does not choose them."""

from __future__ import annotations

from pathlib import Path

from mlperf.benchmarks import (
    BENCHMARKS,
    DLRM,
    EDITIONS,
    Benchmark,
    Edition,
    default_edition,
    editions_of,
)
from mlperf.submission.results import find_results
from mlperf.util.errors import UsageError


def choose_edition(benchmark: str | None, edition: str | None, variable: str) -> Edition:
    """Return the edition of the runs, by default the latest of their benchmark. UsageError for a contradiction.

    benchmark, edition: values of --benchmark and --edition, None if not given. variable: BENCHMARK, "" if not set.
    """
    if variable not in ("", *BENCHMARKS):
        raise UsageError(f"BENCHMARK={variable} in the environment: must be {' or '.join(BENCHMARKS)}")
    if benchmark is not None:
        name, flag = benchmark, f"--benchmark={benchmark}"
    elif edition is not None:
        name, flag = EDITIONS[edition].benchmark.name, f"--edition={edition}"
    else:
        name, flag = variable or DLRM.name, ""
    if variable not in ("", name):
        raise UsageError(f"BENCHMARK={variable} in the environment: contradicts {flag}")
    chosen = default_edition(BENCHMARKS[name]) if edition is None else EDITIONS[edition]
    if chosen.benchmark.name != name:
        allowed = ", ".join(other.name for other in editions_of(BENCHMARKS[name]))
        raise UsageError(f"--edition={edition}: does not include {name}; allowed are {allowed}")
    return chosen


def choose_division(division: str | None, benchmark: Benchmark, *, is_sample: bool) -> str:
    """Return the division: by default closed, but open on the sample if closed fixes the number of its samples.

    UsageError if closed was chosen then. division: value of --division, None if not given. is_sample: whether the
    runs use the sample.
    """
    is_open = is_sample and benchmark.fixes_eval_samples
    if is_open and division == "closed":
        samples = benchmark.data.eval_samples
        raise UsageError(f"--division=closed: not possible on the sample: requires eval_samples of {samples}")
    return division or ("open" if is_open else "closed")


def require_common_division(division: str, package: Path, system: str, benchmark: Benchmark) -> None:
    """Raise UsageError if a package has results of another benchmark of the system, in another division.

    The description of a system states one division, which is that of all its results.
    """
    if not (package / "results" / system).is_dir():
        return
    for result in find_results(package):
        described = result.described().get("division")
        if result.system == system and result.folder.name != benchmark.name and described not in (None, division):
            raise UsageError(
                f"--division={division}: {result.description} states {described}, the division of the results of "
                f"{result.folder.name} in this package; choose the same division or another --system"
            )
