"""The tables of the page: comparison, evaluations, checkpoints, settings, system, sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlperf.page.chart import swatch
from mlperf.page.elements import Content, Markup, element, table
from mlperf.page.numbers import date, duration, significant, size
from mlperf.page.runs import RunReport
from mlperf.util.plural import counted
from mlperf.util.printable import shown

_MAX_COLUMNS = 4  # runs side by side
_MAX_EVALUATIONS = 200  # rows of a table of evaluations
_METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "recall": "recall",
    "precision": "precision",
}


def outcome(report: RunReport) -> Markup:
    """Return how a run ended, with a sign that does not depend on colours."""
    if report.outcome is None:
        return element("span", "○ no end", class_="outcome unknown")
    good = report.outcome == "success"
    return element(
        "span", f"{'✓' if good else '✕'} {report.outcome}", class_=f"outcome {'good' if good else 'bad'}"
    )


def comparison(reports: Sequence[RunReport]) -> Markup:
    """Return one row per run, with the best value of each column in bold."""
    best_auc = _best(reports, lambda report: report.best("auc"), max)
    fastest = _best(reports, lambda report: report.to_target, min)
    speed = _best(reports, lambda report: report.speed, max)
    rows: list[list[Content]] = [
        [
            element("th", swatch(report.group), " ", report.label, scope="row"),
            outcome(report),
            _number(_decimals(report.best("auc"), 5), is_best=report.best("auc") == best_auc),
            _number(_decimals(report.best("accuracy"), 5)),
            _number(duration(report.to_target), is_best=report.to_target == fastest),
            _number(duration(report.seconds)),
            _number(_decimals(report.epochs, 3)),
            _number(significant(report.speed), is_best=report.speed == speed),
            _number(_decimals(report.last_loss, 5)),
            str(report.facts.get("engine") or "").partition(" (")[0] or None,
        ]
        for report in reports
    ]
    head: list[Content] = [
        *("run", "outcome", "best AUC", "best accuracy", "time to target", "time", "epochs", "samples/s"),
        *("last loss", "engine"),
    ]
    return _without_empty_columns(head, rows)


def _best(
    reports: Sequence[RunReport], value: Callable[[RunReport], float | None], better: Callable[..., float]
) -> float | None:
    """Return the best value of several runs, None if they do not differ."""
    values = [found for report in reports if (found := value(report)) is not None]
    return better(values) if len(set(values)) > 1 else None


def _number(text: str | None, *, is_best: bool = False) -> Markup:
    content = element("strong", text) if is_best and text is not None else text
    return element("td", content, class_="number")


def _decimals(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


_EMPTY = (None, "", element("td", None, class_="number"))


def _without_empty_columns(head: list[Content], rows: list[list[Content]]) -> Markup:
    kept = [column for column in range(len(head)) if any(row[column] not in _EMPTY for row in rows)]
    return table([head[column] for column in kept], [[row[column] for column in kept] for row in rows])


def evaluations(report: RunReport) -> Markup | None:
    """Return the evaluations of a run with all their metrics, in a part that is closed at first."""
    curve = report.curves.get("auc") or report.curves.get("accuracy") or []
    if report.evaluations:
        found = list(report.evaluations)
    else:  # of a log: only what the curves tell
        name = "auc" if report.curves.get("auc") else "accuracy"
        found = [{"at": point, name: point.value} for point in curve]
    if not found:
        return None
    rows = [_evaluation(each, report) for each in found[-_MAX_EVALUATIONS:]]
    left_out = len(found) - len(rows)
    note = element("p", f"The first {left_out} are left out.", class_="note") if left_out else None
    head: list[Content] = ["epoch", "time", *_METRICS.values(), "took", ""]
    summary = element("summary", f"{report.label}: {counted(len(found), 'evaluation')}")
    return element("details", summary, note, _without_empty_columns(head, rows))


def _evaluation(record: Mapping[str, Any], report: RunReport) -> list[Content]:
    if (point := record.get("at")) is not None:
        epochs, seconds = point.epochs, point.seconds
    else:
        epochs, seconds = record["epoch"] + record["iteration"] / record["batches_per_epoch"], record["elapsed"]
    is_reached = any(report.reaches(metric, record.get(metric)) for metric in report.targets)
    mark = "target reached" if is_reached else "improved" if record.get("improved") else None
    metrics = [_number(_decimals(record.get(key), 6)) for key in _METRICS]
    return [
        *(_number(_decimals(epochs, 4)), _number(duration(seconds)), *metrics),
        *(_number(duration(record.get("seconds"))), mark),
    ]


def checkpoints(reports: Sequence[RunReport]) -> Markup | None:
    """Return the checkpoints of all runs."""
    rows: list[list[Content]] = [
        [report.label if len(reports) > 1 else None, *_checkpoint(each)]
        for report in reports
        for each in report.checkpoints
    ]
    if not rows:
        return None
    head: list[Content] = ["run", "file", "kind", "position", "AUC", "accuracy", "loss", "size", ""]
    return _without_empty_columns(head, rows)


def _checkpoint(facts: Mapping[str, Any]) -> list[Content]:
    position = None
    if "epoch" in facts and "iteration" in facts:
        position = f"epoch {facts['epoch']}, iteration {facts['iteration']}"
        position += f" of {facts['batches_per_epoch']}" if "batches_per_epoch" in facts else ""
    metrics = [_number(_decimals(facts.get(key), 6)) for key in ("auc", "accuracy", "loss")]
    return [
        *(facts["name"], facts.get("kind"), position, *metrics, _number(size(facts.get("bytes")))),
        element("span", facts["problem"], class_="outcome bad") if "problem" in facts else None,
    ]


def settings(reports: Sequence[RunReport]) -> Markup | None:
    """Return the settings: of several runs first those that differ, then the others."""
    own = [_named_as_typed(report) for report in reports]
    return _side_by_side(reports, own, lambda key, value: _shown(value))


# Flags with the names of outputs, which differ from run to run: listed last.
_OUTPUTS = (
    *("--output-dir", "--metrics-file", "--save-model", "--mlperf-log-file", "--tensor-board-filename"),
    "--save-predictions",
)


def _named_as_typed(report: RunReport) -> dict[str, Any]:
    """Return the settings of a run; flags of this program have their dashes."""
    dashes = "--" if report.source == "metrics" else ""
    return {dashes + name: value for name, value in report.settings.items()}


_UNITS: dict[str, Callable[[Any], str | None]] = {"memory": size}


def system(reports: Sequence[RunReport]) -> Markup | None:
    """Return what the runs were computed with."""

    def text_of(key: str, value: Any) -> str | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return _UNITS[key](value) if key in _UNITS and is_number else _shown(value)

    return _side_by_side(reports, [report.system for report in reports], text_of)


def facts(reports: Sequence[RunReport]) -> Markup | None:
    """Return benchmark, edition, engine, seed and samples, when the runs started, and from which files this is."""
    found = [
        {
            **report.facts,
            "started": date(report.started),
            **{f"target {_METRICS[metric]}": value for metric, value in report.targets.items()},
            "read from": f"{report.path} ({report.source})",
        }
        for report in reports
    ]
    return _side_by_side(reports, found, lambda key, value: _shown(value))


def _side_by_side(
    reports: Sequence[RunReport],
    found: Sequence[Mapping[str, Any]],
    text_of: Callable[[str, Any], str | None],
) -> Markup | None:
    found_keys = dict.fromkeys(key for each in found for key in each)
    keys = sorted(found_keys, key=lambda key: key in _OUTPUTS)
    values = {key: [text_of(key, each[key]) if key in each else None for each in found] for key in keys}
    values = {key: row for key, row in values.items() if any(cell is not None for cell in row)}
    if not values:
        return None
    rows: list[list[Content]]
    if len(reports) == 1:
        rows = [[_heading(key), row[0]] for key, row in values.items()]
        return table(["", ""], rows, class_="facts")
    differing = {key: row for key, row in values.items() if len(set(row)) > 1}
    same = {key: row[0] for key, row in values.items() if key not in differing}
    parts = []
    if differing:
        parts.append(_differing([report.label for report in reports], differing))
    if same:
        rows = [[_heading(key), value] for key, value in same.items()]
        parts.append(table(["the same in all runs", ""], rows, class_="facts"))
    return element("div", *parts)


def _differing(labels: Sequence[str], values: Mapping[str, Sequence[str | None]]) -> Markup:
    """Return what differs: a column for each run or, of many runs, a row."""
    if len(labels) <= _MAX_COLUMNS:
        return table(["differs", *labels], [[_heading(key), *row] for key, row in values.items()])
    head: list[Content] = ["differs", *(key.replace("_", " ") for key in values)]
    rows = zip(*values.values(), strict=True)
    return table(
        head, [[element("th", label, scope="row"), *row] for label, row in zip(labels, rows, strict=True)]
    )


def _heading(key: str) -> Markup:
    """Return the name of an entry as the heading of its row."""
    return element("th", key.replace("_", " "), scope="row")


def _shown(value: Any) -> str | None:
    """Return a value of a file as text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}" if abs(value) < 10**18 else shown(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
