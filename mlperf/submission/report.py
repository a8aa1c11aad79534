"""The report on a log, a result or a package: one row per check, then the findings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from mlperf.benchmarks import Edition
from mlperf.compliance import official
from mlperf.compliance.findings import Finding
from mlperf.util.printable import one_line


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
    alternatives: reports for other editions that the result may belong to.
    """

    title: str
    edition: Edition
    recognized: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: float | None = None
    alternatives: list[Report] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the result passes for each edition that it may belong to."""
        return all(report.passed_alone for report in (self, *self.alternatives))

    @property
    def passed_alone(self) -> bool:
        """Whether all checks for this edition passed, were bypassed or were skipped."""
        return all(check.verdict is not Verdict.FAIL for check in self.checks)

    @property
    def verdict(self) -> str:
        """The last line: the verdict for this edition alone."""
        return f"{self.title}: edition {self.edition.name}: {'SUCCESS' if self.passed_alone else 'FAILED'}"

    def agrees(self, other: Report) -> bool:
        """Return whether the checks of two reports have the same verdicts and findings."""
        mine, others = ([(c.name, c.subject, c.verdict, c.findings) for c in r.checks] for r in (self, other))
        return mine == others


def four_digits(number: float) -> str:
    """Return a number of at least 0 with four significant digits, such as 0.5876, 2.200, 116.6 or 12346."""
    rounded = float(f"{number:.3e}")
    if not 0 < rounded < math.inf:
        return f"{number:.3f}"
    return f"{number:.{max(0, 3 - math.floor(math.log10(rounded)))}f}"


def render(report: Report) -> str:
    """Return the report as text: the table, one line per finding, warning and note, and the verdict.

    Of an alternative that agrees with the report only the verdict is repeated, and the notes about its own round.
    """
    lines = _lines(report)
    for other in report.alternatives:
        own_notes = [f"note: {note}" for note in other.notes if note not in report.notes]
        lines += [*own_notes, other.verdict] if report.agrees(other) else ["", *_lines(other)]
    return "\n".join(map(one_line, lines))


def _lines(report: Report) -> list[str]:
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
    return [*lines, report.verdict]
