"""Conversion of messages of the official checkers to findings, each with file and line."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlperf.benchmarks import Benchmark
from mlperf.compliance.log_reader import TOKEN, Event, Log, as_text, is_number, parse_event
from mlperf.compliance.official import CRASHED, CheckerOutput
from mlperf.util.plural import counted

_FAILED_TEST = re.compile(r"failed test: (.*?)(?:\ncurrent |\Z)", re.DOTALL)
_MARKED_LINE = re.compile(r"failed in line (\d+):")
_TRIGGERING_LINE = re.compile(rf"triggered by line ?:\n{re.escape(TOKEN)}(.*)")
_NUMBERED_LOG = re.compile(r"(?:result file|seeds from) .*?result_(\d+)\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """A problem and its location. `line` is None if the problem is in a folder or the file is missing."""

    path: Path
    line: int | None
    text: str

    @property
    def location(self) -> str:
        """File and line, in the format of compilers."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"


def compliance_findings(log: Log, errors: Sequence[tuple[str | None, str]]) -> list[Finding]:
    """Locate messages of the compliance checker in the log. errors: (log key or None, message) pairs."""
    located = [(_line(log, key, text), _shorten(text)) for key, text in errors]
    return [Finding(log.path, line, text + _cause(log, text)) for line, text in located]


def _line(log: Log, key: str | None, text: str) -> int:
    """Return the line number a message refers to; the last line if an event is missing."""
    if (match := _MARKED_LINE.search(text)) and int(match[1]) < len(log.marked):
        return log.marked[int(match[1])]  # the checker counts the lines with an event, from 0
    if ("parsing errors" in text or CRASHED in text) and (invalid := _first_invalid_line(log)) is not None:
        return invalid
    if (match := _TRIGGERING_LINE.search(text)) is not None:
        trigger = parse_event(0, match[1])
        same = (event.line for event in log.events if trigger == replace(event, line=0))
        return next(same, log.lines)
    if "Failed checks for eval_accuracy" in text:
        key = "eval_accuracy"
        if log.best is not None:
            return log.best.line
    elif "initialized_tensors" in text:
        key = "weights_initialization"
    elif "_common.yaml" in text:  # the checker has no rules for the division
        key = "submission_division"
    elif ".yaml" in text:  # the checker has no rules for the benchmark
        key = "submission_benchmark"
    events = log.all(key) if key is not None else []
    return events[-1].line if events else log.lines


def _first_invalid_line(log: Log) -> int | None:
    return min([*log.damaged, *(line for line, _ in log.invalid_values)], default=None)


def _shorten(text: str) -> str:
    """Return the part of a message that describes the failure, without the log line and the checker's state."""
    head = text.partition("\n")[0]
    if "CHECK code" in head:
        head += " " + text.partition("\n")[2].partition("\ntriggered")[0]
    elif match := _FAILED_TEST.search(text):
        head = "failed test: " + match[1] if head.startswith("failed test") else f"{head} {match[1]}"
    return " ".join(_MARKED_LINE.sub("failed:", head).split())


def _cause(log: Log, text: str) -> str:
    """Return the cause in the log, in parentheses, if the message does not state it; "" if it is unknown.

    text: without the state of the checker, which contains the names of all variables.
    """
    divisions, stops = log.all("submission_division"), log.all("init_stop")
    if "compile_time_mins" in text and divisions and stops and divisions[0].line > stops[0].line:
        return f" (the limit depends on submission_division, which is logged later, in line {divisions[0].line})"
    if "initialized_tensors" in text:
        tensors = [event.metadata.get("tensor") for event in log.all("weights_initialization")]
        counts = Counter(as_text(tensor) for tensor in tensors if tensor is not None)
        repeated = [count for count in counts.values() if count > 1]
        if repeated:
            return f" ({len(repeated)} tensors are logged up to {max(repeated)} times, as by several nodes)"
    return ""


def seed_findings(folder: Path, logs: Sequence[Log], output: CheckerOutput) -> list[Finding]:
    """Locate messages of the seed checker, which read copies of the logs: result_K.txt is a copy of logs[K]."""
    findings = []
    for line in "\n".join(text for _, text in output.errors).splitlines():
        match = _NUMBERED_LOG.search(line)
        if match is None:
            continue  # a malformed line, which the compliance check reports
        log, text = logs[int(match[1])], line[match.end() :]
        if text.startswith(":"):
            text = f"the seed cannot be read{text}".removesuffix(":")
        text = _NUMBERED_LOG.sub(lambda other: str(logs[int(other[1])].path), text).strip()
        findings.append(Finding(log.path, _seed_line(log, text), text))
    return findings or [Finding(folder, None, " ".join(text.split())) for _, text in output.errors]


def _seed_line(log: Log, text: str) -> int:
    if "cannot be read" in text and log.damaged:
        return log.damaged[0]
    seeds = log.all("seed")
    return seeds[0].line if seeds else log.lines


def convergence_findings(
    folder: Path, logs: Sequence[Log], output: CheckerOutput, benchmark: Benchmark
) -> list[Finding]:
    """Locate messages of the convergence checker.

    If the runs were compared with a reference, the finding refers to the evaluation of the run that converged
    first, unless there are too few runs. Otherwise it refers to the log that could not be used, with the reason.
    """
    findings = []
    for _, text in output.errors:
        records, means = output.record_values("RCP Record"), output.record_values("Submission mean epochs")
        if means and math.isnan(means[0]):  # the mean without the fastest and the slowest run
            compared = f"not compared with the reference: the mean needs more than {counted(len(logs), 'log')}"
            findings.append(Finding(folder, None, compared))
        elif records and means:
            rcp = records[0]
            compared = (
                f"converged faster than the reference: {means[0]:.4f} epochs in the mean, at batch size "
                f"{rcp['BS']} at least {rcp['Min Epochs']:.4f} ({text})"
            )
            findings.append(_first_to_converge(folder, logs, compared))
        elif "convergence" in text:
            findings += [Finding(log.path, line, text) for log in logs for line in _unsuccessful(log)[:1]]
        elif unusable := [
            (log, *entries[0]) for log in logs if (entries := _unusable_entries(log, logs, benchmark))
        ]:
            log, line, reason = unusable[0]
            findings.append(Finding(log.path, line, f"{text}: {reason}"))
        elif logs:
            findings.append(Finding(logs[0].path, _line(logs[0], "global_batch_size", text), text))
        else:
            findings.append(Finding(folder, None, text))
    return findings


def _first_to_converge(folder: Path, logs: Sequence[Log], text: str) -> Finding:
    ends = [(log.path, log.all("eval_accuracy")[-1]) for log in logs if log.all("eval_accuracy")]
    ends = [end for end in ends if is_number(end[1].metadata.get("epoch_num"))]
    if not ends:
        return Finding(folder, None, text)
    path, event = min(ends, key=lambda end: end[1].metadata["epoch_num"])
    return Finding(path, event.line, text)


def _unsuccessful(log: Log) -> list[int]:
    """Return the lines of run_stop events without status success; the last line if there is no run_stop."""
    stops = log.all("run_stop")
    return [stop.line for stop in stops if stop.metadata.get("status") != "success"] if stops else [log.lines]


def _unusable_entries(log: Log, logs: Sequence[Log], benchmark: Benchmark) -> list[tuple[int, str]]:
    """Return (line, reason) for each entry the convergence checker cannot use. logs: all logs of the result."""
    expected, example = _usual_batch_size(logs)
    problems = [(line, "no MLPerf event") for line in log.damaged] + log.invalid_values
    problems += _check_last(log, "submission_benchmark", lambda value: value == benchmark.name, benchmark.name)
    problems += _check_last(log, "global_batch_size", is_number, "a number")
    allowed = f"{as_text(expected)} as in {example.path.name}"
    problems += _check_last(log, "global_batch_size", lambda value: value == expected, allowed)
    evaluations, stops = log.all("eval_accuracy"), log.all("run_stop")
    if evaluations and stops and stops[0].line < evaluations[0].line:
        problems.append((stops[0].line, "run_stop comes before all evaluations"))
    problems += [(e.line, "eval_accuracy has no epoch_num") for e in evaluations if "epoch_num" not in e.metadata]
    problems += [(e.line, "run_stop has no status") for e in stops if "status" not in e.metadata]
    return problems if evaluations or log.status != "success" else [*problems, (log.lines, "no eval_accuracy")]


def _usual_batch_size(logs: Sequence[Log]) -> tuple[object, Log]:
    """Return the batch size of most logs, or None, and the first log with it."""
    events = [_last_event(log, "global_batch_size") for log in logs]
    sizes = [None if event is None else event.value for event in events]
    usual = max(sizes, key=lambda size: size is not None and sizes.count(size))
    return usual, logs[sizes.index(usual)]


def _check_last(log: Log, key: str, is_valid: Callable[[object], bool], allowed: str) -> list[tuple[int, str]]:
    """Return (line, reason) if the last event with `key` is missing or invalid. Only the last one is used."""
    event = _last_event(log, key)
    if event is None:
        return [(log.lines, f"no {key}")]
    return [] if is_valid(event.value) else [(event.line, f"{key} is {as_text(event.value)}, not {allowed}")]


def last_value(log: Log, key: str) -> object:
    """Return the last value logged under a key, which is the one that the convergence checker uses, or None."""
    event = _last_event(log, key)
    return None if event is None else event.value


def _last_event(log: Log, key: str) -> Event | None:
    events = log.all(key)
    return events[-1] if events else None
