"""The report on a log, a result or a package: one row per check, then the findings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from mlperf.benchmarks import Edition
from mlperf.compliance import official
from mlperf.compliance.findings import Finding


class Verdict(Enum):
    """Result of a check. BYPASSED: failed, but ignored because of an option of the package checker."""

    PASS = "PASS"
    FAIL = "FAIL"
    BYPASSED = "BYPASSED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Check:
    """One row of the table. `warnings` are printed but do not fail the check."""

    name: str
    subject: str
    verdict: Verdict
    remark: str = ""
    findings: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass
class Report:
    """All checks of one result for one edition.

    recognized: how the edition was determined. score: in minutes; None if there is none.
    """

    title: str
    edition: Edition
    recognized: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: float | None = None

    @property
    def passed(self) -> bool:
        """Whether all checks passed, were bypassed or were skipped."""
        return all(check.verdict is not Verdict.FAIL for check in self.checks)


def four_digits(number: float) -> str:
    """Return a number of at least 0 with four significant digits, such as 0.5876, 2.200, 116.6 or 12346."""
    rounded = float(f"{number:.3e}")
    if not 0 < rounded < math.inf:
        return f"{number:.3f}"
    return f"{number:.{max(0, 3 - math.floor(math.log10(rounded)))}f}"


def render(report: Report) -> str:
    """Return the report as text: the table, one line per finding, warning and note, and the verdict."""
    edition = report.edition.name
    rows = [("check", "of", "verdict", "")]
    rows += [(check.name, check.subject, check.verdict.value, check.remark) for check in report.checks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{report.title}: edition {edition} ({report.recognized}), mlperf-logging {official.version()}", ""]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
    for check in report.checks:
        lines += [f"{finding.location}: {check.name}: {finding.text}" for finding in check.findings]
        lines += [f"{warning.location}: {check.name}, not counted: {warning.text}" for warning in check.warnings]
    lines += [f"note: {note}" for note in report.notes]
    lines.append(f"{report.title}: edition {edition}: {'SUCCESS' if report.passed else 'FAILED'}")
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """Escape unprintable characters, which may come from a log or a file name."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
