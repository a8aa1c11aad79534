"""The official checkers of mlperf-logging, called one by one; what they say is collected, nothing is decided here.

Some of them write beside what they check: give them a copy. Imported late: pandas and scipy come with them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlperf.benchmarks import Edition

BENCHMARK = "dlrm"
STOPS = "the official checker stops with"
# What a failed convergence check must say to be let pass by the package checker's switch.
BYPASSABLE = ("RCP found", "RCP Interpolation", "Missing RCP")
_USAGE = "training"


@dataclass
class Said:
    """A checker's verdict and words. `errors` pairs each with the log key it is about, if any."""

    passed: bool = False
    errors: list[tuple[str | None, str]] = field(default_factory=list)
    warnings: list[tuple[str | None, str]] = field(default_factory=list)
    records: list[logging.LogRecord] = field(default_factory=list)
    printed: str = ""


def version() -> str:
    """Return the version of mlperf-logging."""
    return importlib.metadata.version("mlperf-logging")


def supply_run_count(edition: Edition) -> str | None:
    """Tell the convergence checker the number of runs where it knows none for dlrm; return a line that says so.

    Its table is changed in this process only. Without the number it, and with it the package checker from
    edition 1.0.0 on, ends in a KeyError.
    """
    from mlperf_logging.rcp_checker import rcp_checker

    known = rcp_checker.submission_runs[_USAGE]
    if BENCHMARK in known and BENCHMARK not in _supplied:
        return None
    known[BENCHMARK] = edition.runs
    _supplied.add(BENCHMARK)
    return (
        f"the convergence checker of mlperf-logging {version()} knows no number of runs for {BENCHMARK}: "
        f"{edition.runs} was supplied from outside, the installed package is as it was"
    )


_supplied: set[str] = set()


@contextlib.contextmanager
def _listening(said: Said) -> Iterator[None]:
    """Collect the root logger's records and what is printed; an exception becomes an error."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.records.append(record)

    root, printed = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    root.handlers, root.level = [Collector()], logging.INFO
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever a wrong package makes the checker trip over
        said.passed = False
        said.errors.append((None, f"{STOPS} {type(error).__name__}: {error}"))
    finally:
        root.handlers, root.level = handlers, level
        said.printed = printed.getvalue()


def check_compliance(log: Path, edition: Edition) -> Said:
    """Check one log against the edition's rules."""
    from mlperf_logging.compliance_checker import mlp_compliance

    said = Said()
    checker = mlp_compliance.make_checker(_USAGE, edition.name, quiet=False, werror=False)
    mlp_compliance.enqueued_configs.clear()  # left behind where a former check stopped early
    with _listening(said):
        said.passed = mlp_compliance.main(str(log), f"{_USAGE}_{edition.name}/common.yaml", checker)[0]
    said.errors += [*checker.overwritable.items(), *((None, text) for text in checker.not_overwritable)]
    said.warnings += list(checker.warnings.items())
    return said


def check_seeds(logs: list[Path], edition: Edition) -> Said:
    """Check that every run logs a seed of its own."""
    from mlperf_logging.package_checker.seed_checker import SeedChecker

    said = Said()
    with _listening(said):
        said.passed = SeedChecker(edition.name).check_seeds([str(log) for log in logs])
    _add_logged_errors(said)
    return said


def check_system(description: Path, edition: Edition) -> Said:
    """Check a system description."""
    from mlperf_logging.system_desc_checker import system_desc_checker

    said = Said()
    with _listening(said):
        said.passed = system_desc_checker.check_system_desc(str(description), _USAGE, edition.name)[0]
    for record in _errors(said):
        reasons = record.args[1] if isinstance(record.args, tuple) and len(record.args) > 1 else []
        said.errors += [(None, str(reason)) for reason in reasons] if isinstance(reasons, list) else []
    return said


def check_package(folder: Path, edition: Edition, *, bypass_convergence: bool) -> Said:
    """Check a package: `folder` holds results/ and systems/."""
    from mlperf_logging.package_checker import package_checker

    said = Said()
    with _listening(said):
        package_checker.check_training_package(
            *(str(folder), _USAGE, edition.name),
            **{"quiet": False, "werror": False, "rcp_bypass": bypass_convergence},
            **{"rcp_bert_train_samples": False, "seed_checker_bypass": False, "log_output": ""},
        )
        said.passed = any("FOUND NO ERRORS" in record.getMessage() for record in said.records)
    _add_logged_errors(said)
    return said


def check_convergence(folder: Path, edition: Edition, points: Path | None) -> Said:
    """Compare the runs in `folder` with the reference convergence points, the edition's or those of a file."""
    from mlperf_logging.rcp_checker import rcp_checker

    said = Said()
    with _listening(said), contextlib.ExitStack() as files:
        rcp_file = None if points is None else files.enter_context(points.open(encoding="utf-8"))
        said.passed, message, _ = rcp_checker.check_directory(
            *(str(folder), _USAGE, edition.name, False, False),
            rcp_file=rcp_file,
            rcp_pass="pruned_rcps",
        )
        if not said.passed:
            said.errors.append((None, str(message)))
    return said


def summarize(folder: Path, edition: Edition) -> tuple[Said, float | None]:
    """Return what the result summarizer says of a package, and its score in minutes if it gives one."""
    from mlperf_logging.result_summarizer import result_summarizer

    said, score = Said(), None
    with _listening(said):
        table = result_summarizer.summarize_results(str(folder), _USAGE, edition.name)[0]
        scores = [float(value) for value in table[BENCHMARK].dropna()]
        score = scores[0] if scores else None
        said.passed = score is not None
    if score is None and not said.errors:
        said.errors.append((None, said.printed.strip().partition("\n")[0] or "no score"))
    return said, score


def _errors(said: Said) -> list[logging.LogRecord]:
    return [record for record in said.records if record.levelno >= logging.ERROR]


def _add_logged_errors(said: Said) -> None:
    said.errors += [(None, record.getMessage().strip()) for record in _errors(said)]


def record_values(said: Said, start: str) -> list[Any]:
    """Return the arguments of the checker's messages that begin with `start`, one per message."""
    messages = [record for record in said.records if str(record.msg).strip().startswith(start)]
    # A single dict is not wrapped in a tuple: logging's own rule.
    return [message.args[0] if isinstance(message.args, tuple) else message.args for message in messages]
