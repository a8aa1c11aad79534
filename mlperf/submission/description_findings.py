"""Locate the messages of the official checkers about a system description in its JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import as_text
from mlperf.compliance.official import CRASHED, CheckerOutput
from mlperf.submission.system_description import FIELDS, SUMMARY_FIELDS, required_kind

# Starts of messages of the system description checker.
MISSING_FIELD = "Missing field "
WRONG_STATUS = "Field status contains a non valid value"


def description_findings(path: Path, output: CheckerOutput) -> list[Finding]:
    """Return the messages of the system description checker and the fields that crash it, with line numbers."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    faults = _faults(path)
    reasons = [reason for _, reason in output.errors if CRASHED not in reason or not faults]
    findings = [Finding(path, max(1, len(lines)), reason) for reason in reasons]
    for number, reason in enumerate(reasons):
        if reason.startswith(WRONG_STATUS):
            findings[number] = replace(findings[number], line=_line_of("status", lines))
            findings += _missing_fields(path, len(lines))  # the checker drops them if the status is wrong
    return [*findings, *faults]


def _missing_fields(path: Path, line: int) -> list[Finding]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Finding(path, line, f"{MISSING_FIELD}{name}") for name in FIELDS if name not in content]


def _line_of(field: str, lines: Sequence[str]) -> int:
    return next((number for number, line in enumerate(lines, 1) if f'"{field}"' in line), 1)


def prevents_summary(finding: Finding) -> bool:
    """Return whether a finding about a description makes the summarizer fail."""
    field = finding.text.removeprefix(MISSING_FIELD)
    return field == finding.text or field in SUMMARY_FIELDS


def _faults(path: Path) -> list[Finding]:
    """Return the fields that make the official tools raise, with line numbers."""
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
        kind = required_kind(name, value)
        if kind is not None:
            text = f"{name} is {as_text(value)}, not {kind}, as the official checker needs"
            findings.append(Finding(path, _line_of(name, lines), text))
    return findings
