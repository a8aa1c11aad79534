"""Locate the messages of the official checkers about a system description in its JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from mlperf.compliance.findings import Finding
from mlperf.compliance.log_reader import as_text
from mlperf.compliance.official import CRASHED, CheckerOutput
from mlperf.submission.system_description import SUMMARY_FIELDS, required_kind

MISSING_FIELD = "Missing field "  # start of a message of the system description checker


def description_findings(path: Path, output: CheckerOutput) -> list[Finding]:
    """Return the messages of the system description checker and the fields that crash it, with line numbers."""
    lines = max(1, len(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    faults = _faults(path)
    reasons = [reason for _, reason in output.errors if CRASHED not in reason or not faults]
    return [*(Finding(path, lines, reason) for reason in reasons), *faults]


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
            number = next((i for i, line in enumerate(lines, 1) if f'"{name}"' in line), 1)
            text = f"{name} is {as_text(value)}, not {kind}, as the official checker needs"
            findings.append(Finding(path, number, text))
    return findings
