"""Compare the logs of a result with each other and with the system description.

The official checkers do not. What contradicts that the logs are separate runs of one system in one division fails.
Other differences are reported without failing, because published results have them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import Event, Log, as_text, is_number
from mlperf.submission.against_description import description_differences
from mlperf.submission.report import Check, Verdict
from mlperf.submission.results import Result
from mlperf.submission.same_run import runs_of_other_results, same_runs
from mlperf.util.plural import counted

# Keys with the same value in each run of a result: the submission and its system.
_SYSTEM_KEYS = re.compile(
    r"submission_(org|division|status|platform)|eval_samples|.*(nodes|accelerators|processes|ranks|world_size).*"
)
# The rounds of editions 0.7 to 2.1 accepted runs that differ in these.
_HYPERPARAMETERS = re.compile(
    r"global_batch_size|gradient_accumulation_steps|(opt|lr|sgd|adagrad|adam|lamb|lars)_.*"
)
_PROCESS_KEYS = ("cache_clear", "run_start", "epoch_start")  # logged by the first process or by each one
_MAX_SPEED_RATIO = 1.5  # between runs of one system; in results of editions 0.7 to 2.1 it is at most 1.32

_Entry = tuple[Log, int, str]  # a log, a line and what the log says there


def check_consistency(result: Result, logs: Sequence[Log]) -> Check:
    """Return the row about differences between the logs of a result, and between them and the description."""
    contradictions, differences = description_differences(result, logs)
    findings = [*_different_values(logs, _SYSTEM_KEYS), *_different_processes(logs), *same_runs(logs)]
    findings += [*runs_of_other_results(result, logs), *contradictions]
    warnings = [*_different_values(logs, _HYPERPARAMETERS), *_different_programs(logs), *differences]
    warnings += _different_speeds(logs)
    verdict = Verdict.FAIL if findings else Verdict.PASS
    remark = "not an official check; its round may have accepted the result" if findings else ""
    return Check("consistency", counted(len(logs), "log"), verdict, remark, tuple(findings), tuple(warnings))


def _different_values(logs: Sequence[Log], keys: re.Pattern[str]) -> Iterator[Finding]:
    events = [(log, event) for log in logs for event in log.events if event.value not in (None, "")]
    for key in dict.fromkeys(event.key for _, event in events if keys.fullmatch(event.key)):
        entries = [(log, event.line, _as_text(event.value)) for log, event in events if event.key == key]
        yield from _deviations(key, entries)


def _as_text(value: object) -> str:
    """Return a value as text that is the same for the integer 24 and for 24.0."""
    return as_text(int(value) if isinstance(value, float) and value.is_integer() else value)


def _different_processes(logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield logs in which another number of processes, on other nodes perhaps, logged the same event."""
    for key in _PROCESS_KEYS:
        repeated = [(log, _repetitions(log, key)) for log in logs]
        entries = [(log, events[0].line, str(len(events))) for log, events in repeated if events]
        yield from _deviations(f"the number of processes that log {key}", entries)


def _repetitions(log: Log, key: str) -> list[Event]:
    """Return the events with this key and the epoch of the first one that come from one line of a program.

    Of several lines, that with most events counts: a script that starts the processes may log the event, too.
    """
    events = log.all(key)
    by_line: dict[str, list[Event]] = {}
    for event in events:
        if event.metadata.get("epoch_num") == events[0].metadata.get("epoch_num"):
            line = repr((event.metadata.get("file"), event.metadata.get("lineno")))
            by_line.setdefault(line, []).append(event)
    return max(by_line.values(), key=len, default=[])


def _deviations(what: str, entries: Iterable[_Entry]) -> Iterator[Finding]:
    """Yield the entries that differ from those of most logs."""
    first_lines: dict[tuple[Path, str], int] = {}
    for log, line, value in entries:
        first_lines.setdefault((log.path, value), line)
    if not first_lines:
        return
    usual = Counter(value for _, value in first_lines).most_common(1)[0][0]
    example = next(path for path, value in first_lines if value == usual)
    for (path, value), line in first_lines.items():
        if value != usual:
            yield Finding(path, line, f"{what} is {value}, not {usual} as in {example.name}")


def _different_programs(logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield logs that name another edition than the others, or whose evaluations begin at another epoch."""
    named = [(log, event) for log in logs for event in log.all("submission_benchmark")[:1]]
    editions = [(log, event.line, as_text(event.metadata.get("edition"))) for log, event in named]
    yield from _deviations("the edition that the run logged", editions)
    evaluations = [(log, event) for log in logs for event in log.all("eval_accuracy")[:1]]
    epochs = [(log, event, event.metadata.get("epoch_num")) for log, event in evaluations]
    starts = [(log, event.line, _as_text(round(epoch, 2))) for log, event, epoch in epochs if is_number(epoch)]
    yield from _deviations("the epoch of the first evaluation", starts)


def _different_speeds(logs: Sequence[Log]) -> Iterator[Finding]:
    """Yield runs that are much faster or slower than the others, as those of another system are."""
    speeds = [(log, speed) for log in logs if (speed := _minutes_per_epoch(log)) is not None]
    if len(speeds) < 2:
        return
    middle = median(speed for _, speed in speeds)
    for log, speed in speeds:
        if not middle / _MAX_SPEED_RATIO <= speed <= middle * _MAX_SPEED_RATIO:
            text = f"{speed:.3g} minutes per epoch, {middle:.3g} in the median of the logs: is it the same system?"
            yield Finding(log.path, log.all("eval_accuracy")[0].line, text)


def _minutes_per_epoch(log: Log) -> float | None:
    """Return the time per unit of epoch_num between the first and the last evaluation, or None."""
    ends = [event for event in log.all("eval_accuracy") if is_number(event.metadata.get("epoch_num"))]
    if not ends:
        return None
    epochs = ends[-1].metadata["epoch_num"] - ends[0].metadata["epoch_num"]
    milliseconds = ends[-1].time_ms - ends[0].time_ms
    return milliseconds / 60_000 / epochs if epochs > 0 and milliseconds > 0 else None
