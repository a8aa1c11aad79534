"""Judging a log, the logs of a result, or a package: all official checkers in one table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from mlperf.benchmarks import DEFAULT_EDITION, EDITIONS, Edition
from mlperf.compliance import official
from mlperf.compliance.locate import (
    Finding,
    compliance_findings,
    convergence_findings,
    description_findings,
    seed_findings,
)
from mlperf.compliance.log import Log, evaluated, read_log, shown
from mlperf.compliance.official import Said
from mlperf.submission.results import Result, lay_out

# What the checkers of a whole package repeat of those they call, and the row that says it with file and line.
_TOLD_BY_ANOTHER_ROW = {
    "Compliance check failed in": "compliance",
    "files do not comply": "compliance",
    "Seed checker failed": "seeds",
    "RCP Test Failed": "convergence",
    "ystem description file checker failed": "system description",
    "ystem description checker failed": "system description",
}
_DESCRIPTION = "system description"


class Verdict(Enum):
    """What came of a check; a bypassed one would have failed, but for the package checker's own switch."""

    PASS = "PASS"
    FAIL = "FAIL"
    BYPASSED = "BYPASSED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Check:
    """One row of the table: the check, what it was of, its verdict, a remark, and what it found."""

    name: str
    subject: str
    verdict: Verdict
    remark: str = ""
    findings: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass
class Report:
    """All checks of one result for one edition. `score`: minutes, None where there is none."""

    title: str
    edition: Edition
    recognized: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: float | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.verdict is not Verdict.FAIL for check in self.checks)


def recognize_edition(logs: Sequence[Log]) -> tuple[Edition, str]:
    """Return the edition the logs were written for, and how that is known.

    This project's logs say it. Otherwise the keys tell: weights_initialization came with 1.1.0, where each
    tensor is logged once (the logs of several nodes of 1.0 repeat it), gradient_accumulation_steps with 1.0.0.
    """
    if not logs:
        return DEFAULT_EDITION, "there is no log to tell"
    for log in logs:
        for event in log.all("submission_benchmark"):
            name = event.metadata.get("edition")
            if isinstance(name, str) and name in EDITIONS:
                return EDITIONS[name], "as its run logged"
    tensors = [[event.metadata.get("tensor") for event in log.all("weights_initialization")] for log in logs]
    if any(tensors) and all(len(names) == len(set(map(str, names))) for names in tensors):
        return DEFAULT_EDITION, "by its keys 1.1.0 or later, which ask for the same"
    if any(tensors) or any(log.all("gradient_accumulation_steps") for log in logs):
        return EDITIONS["1.0.0"], "by its keys"
    return EDITIONS["0.7.0"], "by its keys"


def check_log(path: Path, edition: Edition | None = None) -> Report:
    """Check a single log: the official rules, and that the run succeeded. RunError if there is no such file."""
    log = read_log(path)
    report = _report(str(path), [log], edition)
    report.checks += _check_logs([log], report.edition)
    report.checks += [
        Check(name, "1 log", Verdict.SKIPPED, f"takes the {report.edition.runs} logs of a result")
        for name in ("seeds", "system description", "package", "convergence", "summarizer")
    ]
    return report


def check_result(
    result: Result, edition: Edition | None = None, *, points: Path | None = None, bypass: bool = False
) -> Report:
    """Check the logs of one result, and its package if it stands in one.

    points: reference convergence points in the official format instead of the edition's; the package checker,
    which knows only those, is told by its switch to let convergence pass. bypass: use the switch anyhow.
    """
    logs = [read_log(path) for path in result.logs]
    report = _report(str(result.folder), logs, edition)
    edition = report.edition
    closed = result.division(logs) == "closed"
    report.notes += [line for line in (official.supply_run_count(edition), *result.notes) if line]
    report.checks += _check_logs(logs, edition)
    with tempfile.TemporaryDirectory() as scratch:
        package, folder = lay_out(result, logs, Path(scratch))
        names = {str(folder / f"result_{number}.txt"): str(log.path) for number, log in enumerate(logs)}
        names |= {str(package / "systems"): str(result.description.parent), str(package): str(result.package)}
        report.checks += [
            _check_seeds(result, logs, folder, edition, closed=closed),
            _check_description(result, edition),
            _check_package(result, package, edition, bypass=bypass or points is not None, names=names),
            _check_convergence(result, logs, folder, edition, points=points, closed=closed, bypass=bypass),
        ]
        summary, report.score = _summarize(result, package, edition, names)
        report.checks = _located([*report.checks, summary])
    report.notes += _counting_of_short_runs(logs, edition)
    return report


def _counting_of_short_runs(logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    """Yield how the rules count runs that did not converge, and where the score does not follow them."""
    short = [list(_shortfalls(log, edition)) for log in logs]
    count = sum(map(bool, short))
    if count:
        rule = "the rules count it as the slowest" if count == 1 else "the rules allow one"
        verb = "is" if count == 1 else "are"
        yield f"{count} of {len(logs)} runs {verb} aborted or short of the target: {rule}"
    for log, findings in zip(logs, short, strict=True):
        if log.stopped == "aborted" and len(findings) == 1:
            yield f"the summarizer counts the time of {log.path.name} all the same: it looks at the AUC only"


def _report(title: str, logs: Sequence[Log], edition: Edition | None) -> Report:
    recognized = "as given"
    if edition is None:
        edition, recognized = recognize_edition(logs)
    return Report(title, edition, recognized)


def _check_logs(logs: Sequence[Log], edition: Edition) -> Iterator[Check]:
    for log in logs:
        said = official.check_compliance(log.path, edition)
        findings = compliance_findings(log, said.errors)
        findings += [Finding(log.path, line, "no MLPerf event: not JSON with its fields") for line in log.damaged]
        warnings = compliance_findings(log, said.warnings)
        verdict = Verdict.PASS if said.passed and not findings else Verdict.FAIL
        yield Check("compliance", log.path.name, verdict, "", tuple(findings), tuple(warnings))
    for log in logs:
        yield _check_target(log, edition)


def _check_target(log: Log, edition: Edition) -> Check:
    """Check that the run was not aborted and met the target, which the package check does not always notice."""
    findings = []
    for event in log.all("submission_benchmark"):
        if event.value != official.BENCHMARK:
            text = f"the log is of {shown(event.value)}, not of {official.BENCHMARK}"
            findings.append(Finding(log.path, event.line, text))
    findings += [Finding(log.path, line, text) for line, text in log.oddities]
    findings += _shortfalls(log, edition)
    best = log.best
    time = "" if log.minutes is None else f", {log.minutes:.2f} minutes"
    remark = "" if best is None else f"{evaluated(best)}{time}"
    verdict = Verdict.FAIL if findings else Verdict.PASS
    return Check("target reached", log.path.name, verdict, remark, tuple(findings))


def _shortfalls(log: Log, edition: Edition) -> Iterator[Finding]:
    """Yield what makes a run one that the rules count as not converged."""
    best, stops = log.best, log.all("run_stop")
    if log.stopped != "success":
        line = next((event.line for event in stops if event.metadata.get("status") != "success"), log.lines)
        yield Finding(log.path, line, f"run_stop has status {log.stopped}" if stops else "no run_stop")
    target = edition.target(log.value("submission_division"))
    if best is None or best.value < target:
        line = log.lines if best is None else best.line
        reached = "none" if best is None else f"{best.value:.5f}"
        yield Finding(log.path, line, f"target not reached: the best AUC is {reached}, the target {target}")


def _asked(name: str, subject: str, edition: Edition, closed: bool) -> Check | None:
    """Return the row that says why a check is left out, or None."""
    if not edition.checks_package:
        return Check(name, subject, Verdict.SKIPPED, f"edition {edition.name} does not ask for it")
    if not closed:
        return Check(name, subject, Verdict.SKIPPED, "asked for in the closed division only")
    return None


def _check_seeds(result: Result, logs: Sequence[Log], folder: Path, edition: Edition, *, closed: bool) -> Check:
    subject = f"{len(logs)} logs"
    if (skipped := _asked("seeds", subject, edition, closed)) is not None:
        return skipped
    said = official.check_seeds(sorted(folder.glob("result_*.txt")), edition)
    findings = [] if said.passed else seed_findings(result.folder, logs, said)
    switch = result.switch("seed-checker-bypass")
    return _judged("seeds", subject, said, findings, switch)


def _judged(name: str, subject: str, said: Said, findings: Sequence[Finding], switch: str | None = None) -> Check:
    if said.passed:
        return Check(name, subject, Verdict.PASS)
    if switch is not None:
        return Check(name, subject, Verdict.BYPASSED, switch, (), tuple(findings))
    return Check(name, subject, Verdict.FAIL, "", tuple(findings))


def _check_description(result: Result, edition: Edition) -> Check:
    name, subject = _DESCRIPTION, result.description.name
    if not result.in_package:
        return Check(name, "none", Verdict.SKIPPED, "the logs do not stand in a package")
    if not result.description.is_file():
        return Check(name, subject, Verdict.FAIL, "", (Finding(result.description, None, "no such file"),))
    said = official.check_system(result.description, edition)
    findings = description_findings(result.description, said)
    said.passed = said.passed and not findings
    return _judged(name, subject, said, findings)


def _located(checks: Sequence[Check]) -> list[Check]:
    """Give what a checker of the whole package stops at the file and line of the first fault it comes to.

    It reads the system description before the logs.
    """
    in_order = sorted(checks, key=lambda check: check.name != _DESCRIPTION)
    found = [finding for check in in_order for finding in check.findings if finding.line is not None]
    if not found:
        return list(checks)
    return [
        replace(
            check,
            findings=tuple(
                replace(finding, path=found[0].path, line=found[0].line)
                if finding.line is None and official.STOPS in finding.text
                else finding
                for finding in check.findings
            ),
        )
        for check in checks
    ]


def _check_package(
    result: Result, package: Path, edition: Edition, *, bypass: bool, names: dict[str, str]
) -> Check:
    said = official.check_package(package, edition, bypass_convergence=bypass)
    remark = "" if result.in_package else "of a package made around the logs for this check"
    return _of_package("package", result, said, names, remark)


def _of_package(name: str, result: Result, said: Said, names: dict[str, str], remark: str) -> Check:
    """Return the row of a checker of whole packages: what another row tells better is left to that one."""
    rows = {row for start, row in _TOLD_BY_ANOTHER_ROW.items() for _, text in said.errors if start in text}
    findings = [
        Finding(result.folder, None, _renamed(text, names))
        for _, text in said.errors
        if not any(start in text for start in _TOLD_BY_ANOTHER_ROW)
    ]
    remarks = [remark, f"see {', '.join(sorted(rows))}" if rows else ""]
    return replace(_judged(name, result.system, said, findings), remark="; ".join(filter(None, remarks)))


def _check_convergence(
    result: Result,
    logs: Sequence[Log],
    folder: Path,
    edition: Edition,
    *,
    points: Path | None,
    closed: bool,
    bypass: bool,
) -> Check:
    name, subject = "convergence", f"{len(logs)} logs"
    if (skipped := _asked(name, subject, edition, closed)) is not None:
        return skipped
    said = official.check_convergence(folder, edition, points)
    findings = convergence_findings(result.folder, logs, said)
    switch = "--rcp-bypass" if bypass else result.switch("rcp-bypass")
    if not any(text.startswith(official.BYPASSABLE) for _, text in said.errors):
        switch = None
    check = _judged(name, subject, said, findings, switch)
    return check if points is None else replace(check, remark=f"{check.remark} points of {points}".strip())


def _summarize(
    result: Result, package: Path, edition: Edition, names: dict[str, str]
) -> tuple[Check, float | None]:
    said, score = official.summarize(package, edition)
    remark = ""
    if score is not None:
        factor = _scaling(package, result.system)
        scaled = f", times {factor:.4f} for converging faster than the reference mean" if factor != 1 else ""
        remark = f"{score:.2f} minutes, the mean without the fastest and the slowest run{scaled}"
    return _of_package("summarizer", result, said, names, remark), score


def _scaling(package: Path, system: str) -> float:
    file = package / "results" / system / official.BENCHMARK / "scaling.json"
    return float(json.loads(file.read_text())["scaling_factor"]) if file.is_file() else 1.0


def _renamed(text: str, names: dict[str, str]) -> str:
    """Replace the names of the copies by those of the files as the user knows them."""
    for copy, name in names.items():
        text = text.replace(copy, name)
    return " ".join(text.split())


def render(report: Report) -> str:
    """Return the report as text: a table with a row per check, then what was found, a line each."""
    heading = f"{report.title}: edition {report.edition.name} ({report.recognized}), mlperf-logging "
    rows = [("check", "of", "verdict", "")]
    rows += [(check.name, check.subject, check.verdict.value, check.remark) for check in report.checks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [heading + official.version(), ""]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
    for check in report.checks:
        lines += [f"{finding.place}: {check.name}: {finding.text}" for finding in check.findings]
        lines += [f"{warning.place}: {check.name}, not counted: {warning.text}" for warning in check.warnings]
    lines += [f"note: {note}" for note in report.notes]
    lines.append(f"{report.title}: edition {report.edition.name}: {'SUCCESS' if report.passed else 'FAILED'}")
    return "\n".join(_printable(line) for line in lines)


def _printable(line: str) -> str:
    """Write what a terminal cannot show, from a log or a file's name, as an escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
