"""Calls the official checkers of mlperf-logging and collects their output, without judging it.

Some checkers write files into the folder that they check, so pass them a copy. They are imported late, because
they import pandas and scipy.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlperf.benchmarks import Edition

CRASHED = "the official checker stops with"  # prefix of the error reported when a checker raises
# The bypass of the package checker ignores only failed convergence checks whose message starts like this.
BYPASSABLE = ("RCP found", "RCP Interpolation", "Missing RCP")
_USAGE = "training"
_ALTERNATIVES = re.compile(r"(Required AT_LEAST_ONE occurrence of )('\w+'(?: or '\w+')+)")
_DIFFERENT_VALUES = re.compile(r"(.* with different values: )\[(.*)\]", re.DOTALL)


@dataclass
class CheckerOutput:
    """Verdict and messages of one checker.

    errors, warnings: (log key or None, message) pairs.
    records: all log records of the checker. printed: all output of the checker.
    """

    passed: bool = False
    errors: list[tuple[str | None, str]] = field(default_factory=list)
    warnings: list[tuple[str | None, str]] = field(default_factory=list)
    records: list[logging.LogRecord] = field(default_factory=list)
    printed: str = ""

    def record_values(self, start: str) -> list[Any]:
        """Return the argument of each logged message that begins with `start`."""
        messages = [record for record in self.records if str(record.msg).strip().startswith(start)]
        # logging does not wrap a single dict in a tuple.
        return [message.args[0] if isinstance(message.args, tuple) else message.args for message in messages]

    def add_logged_errors(self) -> None:
        """Add the messages that were logged as errors to `errors`."""
        self.errors += [(None, record.getMessage().strip()) for record in self.error_records]

    @property
    def error_records(self) -> list[logging.LogRecord]:
        """The records logged as errors."""
        return [record for record in self.records if record.levelno >= logging.ERROR]


def version() -> str:
    """Return the version of mlperf-logging."""
    return importlib.metadata.version("mlperf-logging")


@contextlib.contextmanager
def supplied_run_count(edition: Edition) -> Iterator[str | None]:
    """Within the block, supply the number of runs if the convergence checker does not know the benchmark.

    Yields a note about it, or None if it is not necessary. Without the number, the convergence checker raises a
    KeyError, as does the package checker from edition 1.0.0 on.
    """
    from mlperf_logging.rcp_checker import rcp_checker

    name = edition.benchmark.name
    known = rcp_checker.submission_runs[_USAGE]
    if name in known:
        yield None
        return
    known[name] = edition.runs
    try:
        yield (
            f"the convergence checker of mlperf-logging {version()} knows no number of runs for {name}: "
            f"{edition.runs} was supplied from outside, the installed package is unchanged"
        )
    finally:
        del known[name]


@contextlib.contextmanager
def _collecting(output: CheckerOutput) -> Iterator[None]:
    """Collect log records and printed output; an exception becomes an error."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            output.records.append(record)

    root, printed = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    root.handlers, root.level = [Collector()], logging.INFO
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # an invalid package can make a checker raise any exception
        output.passed = False
        output.errors.append((None, f"{CRASHED} {type(error).__name__}: {error}"))
    finally:
        root.handlers, root.level = handlers, level
        output.printed = printed.getvalue()


def check_compliance(log: Path, edition: Edition) -> CheckerOutput:
    """Check one log against the rules of an edition."""
    from mlperf_logging.compliance_checker import mlp_compliance

    output = CheckerOutput()
    checker = mlp_compliance.make_checker(_USAGE, edition.name, quiet=False, werror=False)
    mlp_compliance.enqueued_configs.clear()  # global state; stale if an earlier check raised
    with _collecting(output):
        output.passed = mlp_compliance.main(str(log), f"{_USAGE}_{edition.name}/common.yaml", checker)[0]
    unkeyed = sorted({_in_order(text) for text in checker.not_overwritable})  # some are collected in sets
    output.errors += [(key, _in_order(text)) for key, text in checker.overwritable.items()]
    output.errors += [(None, text) for text in unkeyed]
    output.warnings += list(checker.warnings.items())
    return output


def _in_order(text: str) -> str:
    """Return a message of the compliance checker with the keys or values that it takes from a set in order."""
    if (match := _ALTERNATIVES.fullmatch(text)) is not None:
        return match[1] + " or ".join(sorted(match[2].split(" or ")))
    if (match := _DIFFERENT_VALUES.fullmatch(text)) is not None:
        return f"{match[1]}[{', '.join(sorted(match[2].split(', ')))}]"
    return text


def included_benchmarks(edition: Edition) -> frozenset[str]:
    """Return the names of all benchmarks that an edition includes."""
    from mlperf_logging.benchmark_meta import get_allowed_benchmarks

    return frozenset(get_allowed_benchmarks(_USAGE, edition.name))


def check_seeds(logs: list[Path], edition: Edition) -> CheckerOutput:
    """Check that each run logs a seed and that all seeds differ."""
    from mlperf_logging.package_checker.seed_checker import SeedChecker

    output = CheckerOutput()
    with _collecting(output):
        output.passed = SeedChecker(edition.name).check_seeds([str(log) for log in logs])
    output.add_logged_errors()
    return output


def check_system(description: Path, edition: Edition) -> CheckerOutput:
    """Check a system description."""
    from mlperf_logging.system_desc_checker import system_desc_checker

    output = CheckerOutput()
    with _collecting(output):
        output.passed = system_desc_checker.check_system_desc(str(description), _USAGE, edition.name)[0]
    for record in output.error_records:
        reasons = record.args[1] if isinstance(record.args, tuple) and len(record.args) > 1 else []
        output.errors += [(None, str(reason)) for reason in reasons] if isinstance(reasons, list) else []
    return output


def check_package(
    folder: Path, edition: Edition, *, bypass_convergence: bool, bypass_seeds: bool
) -> CheckerOutput:
    """Check a package, a folder with results/ and systems/."""
    from mlperf_logging.package_checker import package_checker

    output = CheckerOutput()
    with _collecting(output):
        package_checker.check_training_package(
            *(str(folder), _USAGE, edition.name),
            quiet=False,
            werror=False,
            rcp_bypass=bypass_convergence,
            rcp_bert_train_samples=False,
            seed_checker_bypass=bypass_seeds,
            log_output="",
        )
        output.passed = any("FOUND NO ERRORS" in record.getMessage() for record in output.records)
    output.add_logged_errors()
    return output


def check_convergence(folder: Path, edition: Edition, rcp_file: Path | None) -> CheckerOutput:
    """Compare the runs in `folder` with the reference points in `rcp_file` or, if None, of the edition."""
    from mlperf_logging.rcp_checker import rcp_checker

    output = CheckerOutput()
    with _collecting(output), contextlib.ExitStack() as files:
        output.passed, message, _ = rcp_checker.check_directory(
            *(str(folder), _USAGE, edition.name, False, False),
            rcp_file=None if rcp_file is None else files.enter_context(rcp_file.open(encoding="utf-8")),
            rcp_pass="pruned_rcps",
        )
        if not output.passed:
            output.errors.append((None, str(message)))
    return output


def summarize(folder: Path, edition: Edition) -> tuple[CheckerOutput, float | None]:
    """Return the output of the result summarizer for a package, and the score in minutes or None."""
    from mlperf_logging.result_summarizer import result_summarizer

    output, score = CheckerOutput(), None
    with _collecting(output):
        table = result_summarizer.summarize_results(str(folder), _USAGE, edition.name)[0]
        scores = [float(value) for value in table[edition.benchmark.name].dropna()]
        score = scores[0] if scores else None
        output.passed = score is not None
    if score is None and not output.errors:
        output.errors.append((None, _first_reason(output.printed.strip().splitlines())))
    return output, score


def _first_reason(printed: list[str]) -> str:
    """Return the first printed line; of lines that differ in the file only, the first in alphabetical order."""
    if not printed:
        return "no score"
    reason = printed[0].partition(" in ")[0]
    return min(line for line in printed if line.partition(" in ")[0] == reason)
