"""Check a log, the logs of a result or a package, with all official checkers and some additional checks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlperf.benchmarks import Edition
from mlperf.compliance import official
from mlperf.compliance.edition import Recognition
from mlperf.compliance.findings import (
    Finding,
    compliance_findings,
    convergence_findings,
    seed_findings,
)
from mlperf.compliance.log_kind import NO_LOG, other_benchmark, other_content, other_names
from mlperf.compliance.log_reader import Log, describe_evaluation, is_number, read_log
from mlperf.compliance.official import CheckerOutput
from mlperf.compliance.run_times import decreasing_time, implausible_time, outside_of_run, repeated_end
from mlperf.compliance.warm_start import warm_start
from mlperf.submission.candidates import EditionCandidates, judge_candidates
from mlperf.submission.consistency import check_consistency
from mlperf.submission.description_findings import description_findings, prevents_summary
from mlperf.submission.report import Check, Report, Verdict, four_digits
from mlperf.submission.results import RCP_BYPASS, SEED_BYPASS, Result, copy_into_package
from mlperf.submission.round_notes import round_notes
from mlperf.submission.same_run import similar_runs
from mlperf.util.errors import RunError
from mlperf.util.plural import counted

# Messages of the package checkers that repeat another check, with the name of that check.
_REPEATED = {
    "Compliance check failed in": "compliance",
    "files do not comply": "compliance",
    "Seed checker failed": "seeds",
    "RCP Test Failed": "convergence",
    "ystem description file checker failed": "system description",
    "ystem description checker failed": "system description",
}
_DESCRIPTION = "system description"
_OF_RESULTS = ("consistency", "seeds", _DESCRIPTION, "package", "convergence", "summarizer")
_GIVEN = "as given"
_SCALING = "scaling.json"
_SAME_FACTOR = 5e-5  # four digits are printed


def check_log(path: Path, edition: Edition | None = None) -> Report:
    """Check one log against the official rules, and that the run succeeded. RunError if it is not a log.

    edition: if None, the log is checked for each edition that it may belong to.
    """
    log = read_log(path)
    if (content := other_content(log)) is not None:
        raise RunError(f"{path}: {NO_LOG}: {content}")
    recognition = EditionCandidates().of_log(log) if edition is None else Recognition((edition,), _GIVEN)
    return judge_candidates(recognition, partial(_check_log, log))


def _check_log(log: Log, edition: Edition, recognized: str) -> Report:
    report = Report(str(log.path), edition, recognized)
    report.checks += _check_logs([log], edition)
    remark = f"{', '.join(_OF_RESULTS)} take the {edition.runs} logs of a result"
    report.checks.append(Check("others", "1 log", Verdict.SKIPPED, remark))
    report.notes += round_notes(report.checks, [log], edition)
    return report


def check_result(
    result: Result,
    edition: Edition | None = None,
    *,
    rcp_file: Path | None = None,
    bypass: bool = False,
    seed_bypass: str | None = None,
    candidates: EditionCandidates | None = None,
) -> Report:
    """Check the logs of one result, and its package if they are in one. RunError if a log cannot be read.

    edition: if None, the result is checked for each edition that it may belong to.
    rcp_file: reference convergence points that replace those of the edition. The package checker supports only
    those of the edition, so its convergence check is bypassed.
    bypass: bypass the convergence check of the package checker.
    seed_bypass: reason for bypassing the seed checker; None if it is not bypassed.
    candidates: shared by the results of a package, so that its edition is recognized once.
    """
    logs = [read_log(path) for path in result.logs]
    if edition is None:
        recognition = (candidates or EditionCandidates()).of_result(result, logs)
    else:
        recognition = Recognition((edition,), _GIVEN)
    return judge_candidates(recognition, partial(_check_result, result, logs, rcp_file, bypass, seed_bypass))


def _check_result(
    result: Result,
    logs: Sequence[Log],
    rcp_file: Path | None,
    bypass: bool,
    seed_bypass: str | None,
    edition: Edition,
    recognized: str,
) -> Report:
    report = Report(str(result.folder), edition, recognized)
    if not logs:
        missing = Finding(result.folder, None, "no result_*.txt")
        report.checks.append(Check("package", "0 logs", Verdict.FAIL, "", (missing,)))
        report.notes += result.notes
        return report
    report.checks += _check_logs(logs, edition)
    with tempfile.TemporaryDirectory() as scratch, official.supplied_run_count(edition) as note:
        report.notes += [note, *result.notes] if note is not None else result.notes
        package_copy, logs_copy = copy_into_package(result, logs, edition.benchmark, Path(scratch))
        checks = _ResultChecks(result, logs, edition, package_copy, logs_copy, seed_bypass)
        report.checks += [
            check_consistency(result, logs),
            checks.seeds(),
            checks.description(),
            checks.package(bypass=bypass or rcp_file is not None),
            checks.convergence(rcp_file, bypass=bypass),
        ]
        summary, report.score = checks.summary()
        report.notes += checks.notes_on_scaling()
        report.checks = _located([*report.checks, summary])
    report.notes += _notes_on_short_runs(logs, edition)
    report.notes += similar_runs(logs, seeds_compared=checks.seeds_compared)
    report.notes += round_notes(report.checks, logs, edition)
    return report


def _notes_on_short_runs(logs: Sequence[Log], edition: Edition) -> Iterator[str]:
    """Yield notes on how the rules count runs that did not converge, and where the summarizer deviates from it."""
    short = [list(_shortfalls(log, edition)) for log in logs]
    count = sum(map(bool, short))
    if count:
        rule = "the rules count it as the slowest" if count == 1 else "the rules allow one"
        verb = "is" if count == 1 else "are"
        yield f"{count} of {len(logs)} runs {verb} aborted or short of the target: {rule}"
    for log, findings in zip(logs, short, strict=True):
        if log.status == "aborted" and len(findings) == 1:
            yield f"the summarizer counts the time of {log.path.name} all the same: it looks at the AUC only"


def _check_logs(logs: Sequence[Log], edition: Edition) -> Iterator[Check]:
    other = {log.path: fault for log in logs if (fault := _other_content(log, edition)) is not None}
    for log in logs:
        if log.path in other:
            yield Check("compliance", log.path.name, Verdict.FAIL, "no keys to check, see target reached")
            continue
        output = official.check_compliance(log.path, edition)
        findings = compliance_findings(log, output.errors)
        findings += [Finding(log.path, line, "no MLPerf event: not JSON with its fields") for line in log.damaged]
        warnings = compliance_findings(log, output.warnings)
        verdict = Verdict.PASS if output.passed and not findings else Verdict.FAIL
        yield Check("compliance", log.path.name, verdict, "", tuple(findings), tuple(warnings))
    for log in logs:
        if log.path in other:
            yield Check("target reached", log.path.name, Verdict.FAIL, "", (other[log.path],))
        else:
            yield _check_target(log, edition)


def _other_content(log: Log, edition: Edition) -> Finding | None:
    """Return what a file is if it is not a log of the benchmark, otherwise None."""
    if (content := other_content(log)) is not None:
        return Finding(log.path, 1, f"{NO_LOG}: {content}")
    if (found := other_benchmark(log, edition.benchmark.name)) is not None:
        return Finding(log.path, found[0].line, found[1])
    return None


def _check_target(log: Log, edition: Edition) -> Check:
    """Check that the run started from scratch, was not aborted and reached the target.

    The package checker does not always do that.
    """
    findings = [Finding(log.path, event.line, text) for event, text in other_names(log, edition.benchmark.name)]
    if (start := warm_start(log)) is not None:
        findings.append(Finding(log.path, *start))
    if (outside := outside_of_run(log)) is not None:
        findings.append(Finding(log.path, outside[0], f"eval_accuracy is {outside[1]}"))
    findings += [Finding(log.path, line, text) for line, text in log.invalid_values]
    findings += [
        Finding(log.path, *found) for found in (repeated_end(log), decreasing_time(log)) if found is not None
    ]
    findings += _shortfalls(log, edition)
    time = "" if log.minutes is None else f", {four_digits(log.minutes)} minutes"
    remark = "" if log.best is None else f"{describe_evaluation(log.best)}{time}"
    verdict = Verdict.FAIL if findings else Verdict.PASS
    other_clock = implausible_time(log)
    warnings = () if other_clock is None else (Finding(log.path, *other_clock),)
    return Check("target reached", log.path.name, verdict, remark, tuple(findings), warnings)


def _shortfalls(log: Log, edition: Edition) -> Iterator[Finding]:
    """Yield the reasons why the rules count a run as not converged."""
    best, stops = log.best, log.all("run_stop")
    if log.status != "success":
        line = next((event.line for event in stops if event.metadata.get("status") != "success"), log.lines)
        yield Finding(log.path, line, f"run_stop has status {log.status}" if stops else "no run_stop")
    target = edition.target(log.value("submission_division"))
    if best is None:
        yield Finding(log.path, log.lines, "target not reached: the run was not evaluated")
    elif best.value < target:
        text = f"target not reached: the best AUC is {best.value:.5f}, the target {target}"
        yield Finding(log.path, best.line, text)


@dataclass(frozen=True)
class _ResultChecks:
    """The checks of a whole result. The checkers read copies of its files."""

    result: Result
    logs: Sequence[Log]
    edition: Edition
    package_copy: Path
    logs_copy: Path
    seed_bypass: str | None

    def seeds(self) -> Check:
        name, subject = "seeds", counted(len(self.logs), "log")
        if (skipped := self._not_required(name, subject)) is not None:
            return skipped
        output = official.check_seeds(sorted(self.logs_copy.glob("result_*.txt")), self.edition)
        findings = [] if output.passed else seed_findings(self.result.folder, self.logs, output)
        given = None if self.seed_bypass is None else f"--seed-bypass: {self.seed_bypass}"
        return _judge(name, subject, output.passed, findings, given or self.result.switch(SEED_BYPASS))

    def description(self) -> Check:
        file = self.result.description
        if not self.result.in_package:
            return Check(_DESCRIPTION, "none", Verdict.SKIPPED, "the logs are not in a package")
        if not file.is_file():
            return Check(_DESCRIPTION, file.name, Verdict.FAIL, "", (Finding(file, None, "no such file"),))
        output = official.check_system(file, self.edition)
        findings = description_findings(file, output)
        if findings and not self.edition.checks_package and not any(map(prevents_summary, findings)):
            remark = f"edition {self.edition.name} does not ask for it"
            return Check(_DESCRIPTION, file.name, Verdict.SKIPPED, remark, (), tuple(findings))
        return _judge(_DESCRIPTION, file.name, output.passed and not findings, findings)

    def package(self, *, bypass: bool) -> Check:
        output = official.check_package(
            self.package_copy,
            self.edition,
            bypass_convergence=bypass or RCP_BYPASS in self.result.package_options,
            bypass_seeds=self.seed_bypass is not None or SEED_BYPASS in self.result.package_options,
        )
        remark = "" if self.result.in_package else "of a package made around the logs for this check"
        return self._whole_package("package", output, remark)

    def convergence(self, rcp_file: Path | None, *, bypass: bool) -> Check:
        name, subject = "convergence", counted(len(self.logs), "log")
        if (skipped := self._not_required(name, subject)) is not None:
            return skipped
        output = official.check_convergence(self.logs_copy, self.edition, rcp_file)
        findings = convergence_findings(self.result.folder, self.logs, output, self.edition.benchmark)
        switch = "--rcp-bypass" if bypass else self.result.switch(RCP_BYPASS)
        if not any(text.startswith(official.BYPASSABLE) for _, text in output.errors):
            switch = None
        check = _judge(name, subject, output.passed, findings, switch)
        return check if rcp_file is None else replace(check, remark=f"{check.remark} points of {rcp_file}".strip())

    def summary(self) -> tuple[Check, float | None]:
        """Return the row of the result summarizer, and the score in minutes or None."""
        output, score = official.summarize(self.package_copy, self.edition)
        remark = ""
        if score is not None:
            factor = self._scaling_factor()
            scaled = f", times {factor:.4f} for converging faster than the reference mean" if factor != 1 else ""
            remark = f"{four_digits(score)} minutes, the mean without the fastest and the slowest run{scaled}"
        return self._whole_package("summarizer", output, remark), score

    def _scaling_factor(self) -> float:
        return _factor(self.logs_copy / _SCALING) or 1.0  # written by the convergence checker

    def notes_on_scaling(self) -> Iterator[str]:
        """Yield a note if the result comes with another scaling factor than the checkers compute today."""
        file = self.result.folder / _SCALING
        given, computed = _factor(file), self._scaling_factor()
        if self.result.in_package and given is not None and abs(given - computed) >= _SAME_FACTOR:
            yield f"{file}: its factor is {given:.4f}; with the reference points of today it is {computed:.4f}"

    @property
    def seeds_compared(self) -> bool:
        """Whether the edition and the division require different seeds."""
        return self._not_required("seeds", "") is None

    def _not_required(self, name: str, subject: str) -> Check | None:
        """Return a SKIPPED row if the edition or the division does not require a check, otherwise None."""
        if not self.edition.checks_package:
            return Check(name, subject, Verdict.SKIPPED, f"edition {self.edition.name} does not ask for it")
        if self.result.division(self.logs) != "closed":
            remark = "asked for in the closed division only"
            if any(log.value("submission_division") == "closed" for log in self.logs):
                remark += ", which the logs name; the description does not"
            return Check(name, subject, Verdict.SKIPPED, remark)
        return None

    def _whole_package(self, name: str, output: CheckerOutput, remark: str) -> Check:
        """Return the row for a package checker, without messages already located by another row."""
        rows = {row for start, row in _REPEATED.items() for _, text in output.errors if start in text}
        findings = [
            Finding(self.result.folder, None, self._with_original_names(text))
            for _, text in output.errors
            if not any(start in text for start in _REPEATED)
        ]
        remarks = [remark, f"see {', '.join(sorted(rows))}" if rows else ""]
        check = _judge(name, self.result.system, output.passed, findings)
        return replace(check, remark="; ".join(filter(None, remarks)))

    def _with_original_names(self, text: str) -> str:
        """Replace the names of the copies by those of the original files."""
        result = self.result
        for number, log in enumerate(self.logs):
            text = text.replace(str(self.logs_copy / f"result_{number}.txt"), str(log.path))
        text = text.replace(str(self.package_copy / "systems"), str(result.description.parent))
        return " ".join(text.replace(str(self.package_copy), str(result.package)).split())


def _factor(file: Path) -> float | None:
    """Return the factor of the score in a file of the convergence checker, None without one."""
    try:
        factor = json.loads(file.read_text(encoding="utf-8"))["scaling_factor"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(factor) if is_number(factor) else None


def _judge(name: str, subject: str, passed: bool, findings: Sequence[Finding], switch: str | None = None) -> Check:
    """Return the row of a check. switch: the option that bypasses the check, or None."""
    if passed:
        return Check(name, subject, Verdict.PASS)
    if switch is not None:
        return Check(name, subject, Verdict.BYPASSED, switch, (), tuple(findings))
    return Check(name, subject, Verdict.FAIL, "", tuple(findings))


def _located(checks: Sequence[Check]) -> list[Check]:
    """Attach findings about a crashed package checker to the problem that made it crash.

    If another check crashed with the same message, that is the problem it reports. Otherwise it is the first
    problem in the order in which the package checker reads the files: the system description, then the logs.
    """
    order = {_DESCRIPTION: 0, "convergence": 1, "compliance": 2, "target reached": 3}
    read = sorted((check for check in checks if check.name in order), key=lambda check: order[check.name])
    problems = [finding for check in read for finding in check.findings if finding.line is not None]

    def move(finding: Finding) -> Finding:
        if finding.line is not None or official.CRASHED not in finding.text or not problems:
            return finding
        cause = next((problem for problem in problems if problem.text.startswith(finding.text)), problems[0])
        return replace(finding, path=cause.path, line=cause.line)

    return [replace(check, findings=tuple(map(move, check.findings))) for check in checks]
