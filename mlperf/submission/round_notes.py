"""Notes on failed checks that the round of an edition accepted.

The official checkers are newer than the rounds. Some of their rules were introduced after the results of earlier
rounds had been published, and they apply them to those results too. Source: the history of the checkers,
github.com/mlcommons/logging.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from mlperf.benchmarks import Edition
from mlperf.compliance import official
from mlperf.compliance.findings import Finding, last_value
from mlperf.compliance.log_reader import Log
from mlperf.compliance.warm_start import NOT_FROM_SCRATCH
from mlperf.submission.description_findings import MISSING_FIELD
from mlperf.submission.report import Check, Verdict

_WEIGHTS_REQUIRED = datetime.date(2022, 3, 29)
_EQUAL_SIZES_REQUIRED = datetime.date(2023, 1, 23)
_DESCRIPTION_REQUIRED = datetime.date(2023, 12, 12)
_SEEDS_REQUIRED = datetime.date(2024, 9, 13)
_VALID = "valid in its round"


def round_notes(checks: Sequence[Check], logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    """Yield a note for each failed check that the checkers of the edition's round let pass, with the reason."""
    failed = {check.name: check for check in checks if check.verdict is Verdict.FAIL}
    yield from _on_logs(checks, logs, edition)
    if "seeds" in failed and not any(log.all("seed") for log in logs) and edition.published < _SEEDS_REQUIRED:
        yield (
            f"seeds: {_VALID} {edition.name}: a result without any seed has been refused since "
            f"{_month(_SEEDS_REQUIRED)} only; --seed-bypass=REASON accepts it"
        )
    if "system description" in failed and _only_reported(failed["system description"], edition):
        day = _month(_DESCRIPTION_REQUIRED)
        yield f"system description: {_VALID} {edition.name}: missing fields were accepted until {day}"
    if "convergence" in failed:
        yield from _on_convergence(failed["convergence"], logs, edition)


def _on_logs(checks: Sequence[Check], logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    """Yield notes on the logs that do not comply or miss the target."""
    only_warned = edition.new_keys >= {"weights_initialization"} and edition.published < _WEIGHTS_REQUIRED
    faults: dict[str, list[Finding]] = {}
    for check in checks:
        if check.name in ("compliance", "target reached"):
            faults.setdefault(check.subject, []).extend(check.findings)
    if only_warned and any(map(_is_about_weights, [fault for found in faults.values() for fault in found])):
        faults = {log: [fault for fault in found if not _is_about_weights(fault)] for log, found in faults.items()}
        yield f"compliance: {_VALID} {edition.name}: its checker only warned of weights_initialization"
    warm = any(fault.text.startswith(NOT_FROM_SCRATCH) for found in faults.values() for fault in found)
    if sum(map(bool, faults.values())) == 1 and len(logs) == edition.runs and not warm:
        rule = f"the rules accept one of {edition.runs} runs that is aborted or does not comply"
        yield f"compliance, target reached: {_VALID} {edition.name}: {rule}"


def _is_about_weights(fault: Finding) -> bool:
    missing = fault.text.startswith("Required AT_LEAST_ONE occurrence of 'weights_initialization'")
    return missing or "initialized_tensors" in fault.text


def _only_reported(check: Check, edition: Edition) -> bool:
    """Return whether the round accepted a description with these faults. Edition 1.0.0 did not."""
    missing = all(finding.text.startswith(MISSING_FIELD) for finding in check.findings)
    return missing and edition.name != "1.0.0" and edition.published < _DESCRIPTION_REQUIRED


def _on_convergence(check: Check, logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    sizes = {str(last_value(log, "global_batch_size")) for log in logs}
    texts = [finding.text for finding in check.findings]
    if len(sizes) > 1 and edition.published < _EQUAL_SIZES_REQUIRED:
        day = _month(_EQUAL_SIZES_REQUIRED)
        yield f"convergence: {_VALID} {edition.name}: until {day}, the runs of a result could differ in batch size"
    elif any(start in text for start in official.BYPASSABLE for text in texts):
        yield (
            f"convergence: in its round {edition.name} the review decided about such results, which are submitted "
            "with the bypass of the package checker; --rcp-bypass accepts the result"
        )


def _month(day: datetime.date) -> str:
    return f"{day:%B %Y}"
