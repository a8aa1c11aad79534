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
from mlperf.compliance.log_kind import NO_LOG, OTHER_LOG
from mlperf.compliance.log_reader import Log, is_number
from mlperf.compliance.run_times import OUTSIDE
from mlperf.compliance.warm_start import NOT_FROM_SCRATCH
from mlperf.submission.description_findings import MISSING_FIELD, WRONG_STATUS
from mlperf.submission.report import Check, Verdict
from mlperf.submission.same_run import SAME_RUN

_WEIGHTS_REQUIRED = datetime.date(2022, 3, 29)
_EQUAL_SIZES_REQUIRED = datetime.date(2023, 1, 23)
_DESCRIPTION_REQUIRED = datetime.date(2023, 12, 12)
_SEEDS_REQUIRED = datetime.date(2024, 9, 13)
# The four statuses came after the results of round 4.0 had been submitted, and are meant for later rounds by the
# history of the checkers; the released one compares them for 4.0 too. The other words were those of round 4.0.
_STATUS_WORDING_REQUIRED = datetime.date(2024, 9, 4)
_EARLIER_STATUSES = frozenset(
    {
        *("available on-premise", "onprem", "available", "available onprem", "available cloud", "cloud"),
        *("research, development, or internal (rdi)", "rdi", "research", "development", "internal", "preview"),
    }
)
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
    if "system description" in failed:
        yield from _on_description(failed["system description"], edition)
    if "consistency" in failed:
        yield _on_consistency(failed["consistency"], logs, edition)
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
    refused = any(map(_is_no_result, [fault for found in faults.values() for fault in found]))
    if sum(map(bool, faults.values())) == 1 and len(logs) == edition.runs and not refused:
        rule = f"the rules accept one of {edition.runs} runs that is aborted or does not comply"
        yield f"compliance, target reached: {_VALID} {edition.name}: {rule}"


def _is_no_result(fault: Finding) -> bool:
    """Return whether a file is not the log of a whole run of the benchmark, which no round accepts."""
    return any(words in fault.text for words in (NOT_FROM_SCRATCH, OUTSIDE, NO_LOG, OTHER_LOG))


def _is_about_weights(fault: Finding) -> bool:
    missing = fault.text.startswith("Required AT_LEAST_ONE occurrence of 'weights_initialization'")
    return missing or "initialized_tensors" in fault.text


def _on_description(check: Check, edition: Edition) -> Iterator[str]:
    """Yield the note on a description whose faults the round accepted. Edition 1.0.0 refused missing fields."""
    texts = [finding.text for finding in check.findings]
    only_missing = all(text.startswith(MISSING_FIELD) for text in texts)
    if only_missing and edition.name != "1.0.0" and edition.published < _DESCRIPTION_REQUIRED:
        day = _month(_DESCRIPTION_REQUIRED)
        yield f"system description: {_VALID} {edition.name}: missing fields were accepted until {day}"
    if all(map(_has_earlier_status, texts)) and edition.published < _STATUS_WORDING_REQUIRED:
        day = _month(_STATUS_WORDING_REQUIRED)
        yield f"system description: {_VALID} {edition.name}: other words for the status were accepted until {day}"


def _has_earlier_status(text: str) -> bool:
    status = text.removeprefix(f"{WRONG_STATUS}: ").partition(", must be one of ")[0]
    return text.startswith(WRONG_STATUS) and status.lower() in _EARLIER_STATUSES


def _on_consistency(check: Check, logs: Sequence[Log], edition: Edition) -> str:
    copies = sum(SAME_RUN in finding.text for finding in check.findings)
    found = f"; here {copies} of {len(logs)} logs record runs of other logs" if copies else ""
    return f"consistency: the checkers of its round {edition.name} accept it: they do not compare the files{found}"


def _on_convergence(check: Check, logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    sizes = [last_value(log, "global_batch_size") for log in logs]
    texts = [finding.text for finding in check.findings]
    if all(map(is_number, sizes)) and len(set(sizes)) > 1 and edition.published < _EQUAL_SIZES_REQUIRED:
        day = _month(_EQUAL_SIZES_REQUIRED)
        yield f"convergence: {_VALID} {edition.name}: until {day}, the runs of a result could differ in batch size"
    elif any(start in text for start in official.BYPASSABLE for text in texts):
        yield (
            f"convergence: in its round {edition.name} the review decided about such results, which are submitted "
            "with the bypass of the package checker; --rcp-bypass accepts the result"
        )


def _month(day: datetime.date) -> str:
    return f"{day:%B %Y}"
