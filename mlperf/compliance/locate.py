"""From the official checkers' words to findings: what is wrong, in which file, on which line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.compliance.log import Log, is_number, shown
from mlperf.compliance.official import BENCHMARK, STOPS, Said, record_values

_FAILED_TEST = re.compile(r"failed test: (.*?)(?:\ncurrent |\Z)", re.DOTALL)
_MARKED_LINE = re.compile(r"failed in line (\d+):")
_NUMBERED_LOG = re.compile(r"(?:result file|seeds from) .*?result_(\d+)\.txt", re.IGNORECASE)
# The tables of the system description checker and of the summarizer are joined from these.
_TEXT_FIELDS = (
    *("submitter", "system_name", "host_processor_model_name", "host_processor_core_count"),
    *("accelerator_model_name", "accelerators_per_node", "framework"),
)
_NOTES = ("hw_notes", "sw_notes")  # left out where they are empty, of whatever kind
_COUNTS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")


@dataclass(frozen=True)
class Finding:
    """What is wrong and where; `line` is None for what is wrong with a folder, or with a file that is missing."""

    path: Path
    line: int | None
    text: str

    @property
    def place(self) -> str:
        """File and line, as compilers print them."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"


def compliance_findings(log: Log, errors: Sequence[tuple[str | None, str]]) -> list[Finding]:
    """Locate the compliance checker's messages, each with the key it is about, in the log."""
    return [Finding(log.path, _line(log, key, text), _brief(text)) for key, text in errors]


def _line(log: Log, key: str | None, text: str) -> int:
    """Return the line a message is about; of what is missing, the last line: it should have come before."""
    if (match := _MARKED_LINE.search(text)) and int(match[1]) < len(log.marked):
        return log.marked[int(match[1])]  # the checker counts the lines with an event, from 0
    if ("parsing errors" in text or STOPS in text) and (odd := _odd_line(log)) is not None:
        return odd
    if "Failed checks for eval_accuracy" in text and log.best is not None:
        return log.best.line
    if "initialized_tensors" in text:
        key = "weights_initialization"
    events = log.all(key) if key is not None else []
    return events[-1].line if events else log.lines


def _odd_line(log: Log) -> int | None:
    """Return the first line a checker can trip over."""
    return min([*log.damaged, *(line for line, _ in log.oddities)], default=None)


def _brief(text: str) -> str:
    """Cut a message down to what failed: the checker repeats the whole line and its state."""
    head = text.partition("\n")[0]
    if "CHECK code" in head:
        head += " " + text.partition("\n")[2].partition("\ntriggered")[0]
    elif match := _FAILED_TEST.search(text):
        head = "failed test: " + match[1] if head.startswith("failed test") else f"{head} {match[1]}"
    return " ".join(_MARKED_LINE.sub("failed:", head).split())


def seed_findings(folder: Path, logs: Sequence[Log], said: Said) -> list[Finding]:
    """Locate the seed checker's messages; it was given copies named result_K.txt, K being the log's place."""
    findings = []
    for line in "\n".join(text for _, text in said.errors).splitlines():
        match = _NUMBERED_LOG.search(line)
        if match is None:
            continue  # the damaged lines of a log, which the compliance checker's row names
        log, words = logs[int(match[1])], line[match.end() :]
        if words.startswith(":"):
            words = f"the seed cannot be read{words}".removesuffix(":")
        words = _NUMBERED_LOG.sub(lambda other: str(logs[int(other[1])].path), words).strip()
        findings.append(Finding(log.path, _seed_line(log, words), words))
    return findings or [Finding(folder, None, " ".join(text.split())) for _, text in said.errors]


def _seed_line(log: Log, words: str) -> int:
    if "cannot be read" in words and log.damaged:
        return log.damaged[0]
    seeds = log.all("seed")
    return seeds[0].line if seeds else log.lines


def convergence_findings(folder: Path, logs: Sequence[Log], said: Said) -> list[Finding]:
    """Say what the convergence checker compared, at the evaluation of the run that converged first."""
    findings = []
    for _, text in said.errors:
        points, means = record_values(said, "RCP Record"), record_values(said, "Submission mean epochs")
        if points and means:
            point = points[0]
            text = (  # noqa: PLW2901
                f"converged faster than the reference: {means[0]:.4f} epochs in the mean, at batch size "
                f"{point['BS']} at least {point['Min Epochs']:.4f} ({text})"
            )
        log, line = _first_to_converge(logs) if points else _odd_log(logs, text)
        findings.append(Finding(folder if log is None else log.path, line, text))
    return findings


def _first_to_converge(logs: Sequence[Log]) -> tuple[Log | None, int | None]:
    ends = [(log, log.all("eval_accuracy")[-1]) for log in logs if log.all("eval_accuracy")]
    ends = [end for end in ends if is_number(end[1].metadata.get("epoch_num"))]
    log, event = min(ends, key=lambda end: end[1].metadata["epoch_num"], default=(None, None))
    return log, None if event is None else event.line


def _odd_log(logs: Sequence[Log], text: str) -> tuple[Log | None, int | None]:
    """Return the log that explains why nothing was compared: one that did not succeed, or the batch size."""
    if STOPS in text:
        for log in logs:
            if (odd := _odd_line(log)) is not None:
                return log, odd
            if log.value("submission_benchmark") != BENCHMARK:
                events = log.all("submission_benchmark")
                return log, events[0].line if events else log.lines
            if not is_number(log.value("global_batch_size")):
                sizes = log.all("global_batch_size")
                return log, sizes[0].line if sizes else log.lines
    if "convergence" in text:
        for log in logs:
            if log.stopped != "success":
                stops = log.all("run_stop")
                return log, stops[0].line if stops else log.lines
    for log in logs:
        sizes = log.all("global_batch_size")
        if not sizes or sizes[0].value != logs[0].value("global_batch_size") or "RCP" in text:
            return log, sizes[0].line if sizes else log.lines
    return (logs[0], 1) if logs else (None, None)


def description_findings(path: Path, said: Said) -> list[Finding]:
    """Locate the system description checker's reasons in the JSON file."""
    lines = max(1, len(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    faults = _description_faults(path)
    reasons = [reason for _, reason in said.errors if STOPS not in reason or not faults]
    return [*(Finding(path, lines, reason) for reason in reasons), *faults]


def _description_faults(path: Path) -> list[Finding]:
    """Return what the official checkers and the summarizer trip over in a system description, with its line."""
    data = path.read_bytes()
    try:
        content = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return [Finding(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8")]
    except json.JSONDecodeError as error:
        return [Finding(path, error.lineno, f"not JSON: {error}")]
    except (ValueError, RecursionError) as error:
        return [Finding(path, 1, f"not JSON that can be read: {error}")]
    if not isinstance(content, dict):
        return [Finding(path, 1, "not one JSON object")]
    lines = data.decode("utf-8").splitlines()
    findings = []
    for name, value in content.items():
        need = _need(name, value)
        if need is not None:
            number = next((i for i, line in enumerate(lines, 1) if f'"{name}"' in line), 1)
            text = f"{name} is {shown(value)}, not {need}, as the official checker needs"
            findings.append(Finding(path, number, text))
    return findings


def _need(name: str, value: object) -> str | None:
    """Return what a field should have been, None if it is that."""
    if name in (*_TEXT_FIELDS, *(_NOTES if value else ())) and not isinstance(value, str):
        return "a string"
    if name == "division" and value not in ("closed", "open"):
        return "closed or open"
    if name in _COUNTS:
        try:
            int(value)  # type: ignore[call-overload]
        except (TypeError, ValueError, OverflowError):
            return "a whole number"
    return None
