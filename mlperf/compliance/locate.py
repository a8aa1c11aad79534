"""From the official checkers' words to findings: what is wrong, in which file, on which line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlperf.compliance.log import Log, is_number, shown
from mlperf.compliance.official import BENCHMARK, STOPS, Said, record_values
from mlperf.submission.system_description import needed_kind

_FAILED_TEST = re.compile(r"failed test: (.*?)(?:\ncurrent |\Z)", re.DOTALL)
_MARKED_LINE = re.compile(r"failed in line (\d+):")
_NUMBERED_LOG = re.compile(r"(?:result file|seeds from) .*?result_(\d+)\.txt", re.IGNORECASE)


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
    elif "_common.yaml" in text:  # of a division, or below of a benchmark, for which the checker has no rules
        key = "submission_division"
    elif ".yaml" in text:
        key = "submission_benchmark"
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
    """Say what the convergence checker compared, at the evaluation of the run that converged first.

    Where it compared nothing: which log it could not use, and why.
    """
    findings = []
    for _, text in said.errors:
        points, means = record_values(said, "RCP Record"), record_values(said, "Submission mean epochs")
        if points and means:
            point = points[0]
            text = (  # noqa: PLW2901
                f"converged faster than the reference: {means[0]:.4f} epochs in the mean, at batch size "
                f"{point['BS']} at least {point['Min Epochs']:.4f} ({text})"
            )
            findings.append(_first_to_converge(folder, logs, text))
        elif "convergence" in text:
            findings += [Finding(log.path, line, text) for log in logs for line in _unsuccessful(log)[:1]]
        elif obstacles := [(log, *obstacle) for log in logs for obstacle in _obstacles(log, logs[0])[:1]]:
            log, line, reason = obstacles[0]
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
    """Return the lines of run_stop that do not say success; where there is none, the last line."""
    stops = log.all("run_stop")
    return [stop.line for stop in stops if stop.metadata.get("status") != "success"] if stops else [log.lines]


def _obstacles(log: Log, first: Log) -> list[tuple[int, str]]:
    """Return the lines of a log that the convergence checker cannot use, and why."""
    found = [(line, "no MLPerf event") for line in log.damaged] + list(log.oddities)
    found += _unless(log, "submission_benchmark", lambda value: value == BENCHMARK, BENCHMARK)
    found += _unless(log, "global_batch_size", is_number, "a number")
    size = _last_value(first, "global_batch_size")
    need = f"{shown(size)} as in {first.path.name}"
    found += _unless(log, "global_batch_size", lambda value: value == size, need)
    evaluations, stops = log.all("eval_accuracy"), log.all("run_stop")
    found += [(e.line, "eval_accuracy has no epoch_num") for e in evaluations if "epoch_num" not in e.metadata]
    found += [(e.line, "run_stop has no status") for e in stops if "status" not in e.metadata]
    return found if evaluations or log.stopped != "success" else [*found, (log.lines, "no eval_accuracy")]


def _unless(log: Log, key: str, fits: Callable[[object], bool], need: str) -> list[tuple[int, str]]:
    """Return the line of the last event of a key, which is the one that counts, unless its value fits."""
    events = log.all(key)
    if not events:
        return [(log.lines, f"no {key}")]
    event = events[-1]
    return [] if fits(event.value) else [(event.line, f"{key} is {shown(event.value)}, not {need}")]


def _last_value(log: Log, key: str) -> object:
    events = log.all(key)
    return events[-1].value if events else None


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
        kind = needed_kind(name, value)
        if kind is not None:
            number = next((i for i, line in enumerate(lines, 1) if f'"{name}"' in line), 1)
            text = f"{name} is {shown(value)}, not {kind}, as the official checker needs"
            findings.append(Finding(path, number, text))
    return findings
