"""The page: one HTML file with everything in it, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from mlperf.page import tables
from mlperf.page.breakdown import breakdowns
from mlperf.page.charts import axes_of, charts
from mlperf.page.elements import Content, Markup, element, joined, text
from mlperf.page.numbers import date, duration, significant
from mlperf.page.runs import RunReport
from mlperf.util.plural import counted


def page_of(reports: Sequence[RunReport], title: str, warnings: Sequence[str] = ()) -> str:
    """Return the page of at least one run as HTML. It contains no time, so the same runs give the same page."""
    sections = [_charts(reports)]
    for name, heading, content in (
        ("time", "Where the time goes", breakdowns(reports)),
        ("evaluations", "Evaluations", _evaluations(reports)),
        ("checkpoints", "Checkpoints", tables.checkpoints(reports)),
        ("settings", "Settings", tables.settings(reports)),
        ("system", "System", tables.system(reports)),
        ("runs", "Runs and sources" if len(reports) > 1 else "Run and source", tables.facts(reports)),
    ):
        if content is not None:
            sections.append(element("section", element("h2", heading), content, id=name))
    body = element(
        "main", _header(reports, title), _warnings(reports, warnings), _summary(reports), *sections, _footer()
    )
    return f"<!DOCTYPE html>\n{_document(title, body)}\n"


def _document(title: str, body: Markup) -> Markup:
    head = joined(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        # Nothing is loaded from anywhere, whatever the files of the runs contain.
        Markup(
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
        ),
        element("title", title),
        Markup(f"<style>\n{_asset('page.css')}</style>"),
    )
    script = Markup(f"<script>\n{_asset('page.js')}</script>")
    return element("html", element("head", head), element("body", body, script), lang="en")


def _asset(name: str) -> str:
    return files("mlperf.page").joinpath(name).read_text(encoding="utf-8")


def _header(reports: Sequence[RunReport], title: str) -> Markup:
    benchmarks = dict.fromkeys(str(report.facts.get("benchmark")) for report in reports)
    dates = [shown for report in reports if (shown := date(report.started)) is not None]
    days = sorted({shown.partition(" ")[0] for shown in dates})
    when = dates[0] if len(dates) == 1 else " to ".join(dict.fromkeys((days[0], days[-1]))) if days else None
    parts = [
        counted(len(reports), "run") if len(reports) > 1 else reports[0].label,
        " and ".join(benchmarks),
        when,
    ]
    line = " · ".join(part for part in parts if part)
    return element("header", element("h1", title), element("p", line, class_="subtitle"))


def _warnings(reports: Sequence[RunReport], warnings: Sequence[str]) -> Markup | None:
    found = [f"{report.label}: {warning}" for report in reports for warning in report.warnings]
    left_out = [warning.removeprefix("warning: ") for warning in warnings if "left out" in warning]
    lines = [*found, *left_out]
    return element("ul", *(element("li", line) for line in lines), class_="warnings") if lines else None


def _summary(reports: Sequence[RunReport]) -> Markup:
    if len(reports) > 1:
        return element("section", element("h2", "Comparison"), tables.comparison(reports), id="comparison")
    (report,) = reports
    return element("section", *_tiles(report), class_="tiles")


def _tiles(report: RunReport) -> list[Markup]:
    """Return the most important numbers of one run."""
    tiles: list[tuple[str, Content, str]] = [("outcome", tables.outcome(report), "")]
    has_auc = report.best("auc") is not None
    for metric, name in (("auc", "AUC"), ("accuracy", "accuracy")):
        best, target = report.best(metric), report.targets.get(metric)
        if best is not None and target is not None:
            below = "reached" if best >= target else f"{target - best:.5f} below"
            tiles.append((f"best {name}", f"{best:.5f}", f"target {target:g}: {below}"))
        elif best is not None and (metric == "auc" or not has_auc):
            tiles.append((f"best {name}", f"{best:.5f}", "on the test split"))
    if report.to_target is not None:
        tiles.append(("time to target", duration(report.to_target), f"of {duration(report.seconds)}"))
    elif report.seconds is not None:
        tiles.append(("time", duration(report.seconds), "from start to end"))
    if report.speed is not None:
        tiles.append(("speed", significant(report.speed), "samples per second, without evaluations"))
    if report.last_loss is not None:
        tiles.append(("training loss", f"{report.last_loss:.5f}", "at the end"))
    if report.epochs is not None:
        tiles.append(("epochs", f"{report.epochs:.3g}", "trained"))
    return [
        element(
            "div",
            element("p", name, class_="name"),
            element("p", value, class_="value"),
            element("p", note, class_="note"),
            class_="tile",
        )
        for name, value, note in tiles
    ]


def _charts(reports: Sequence[RunReport]) -> Markup:
    axes = axes_of(reports) or ["epochs"]
    choices = [
        element(
            "label",
            Markup(f'<input type="radio" name="axis" value="{axis}"{" checked" if axis == axes[0] else ""}>'),
            text(axis),
        )
        for axis in axes
    ]
    choice = element("div", "over ", *choices, class_="choice", role="radiogroup", aria_label="horizontal axis")
    heading = element("div", element("h2", "Curves"), choice if len(axes) > 1 else None, class_="heading")
    return element("section", heading, charts(reports, axes), id="curves", data_axis=axes[0])


def _evaluations(reports: Sequence[RunReport]) -> Markup | None:
    found = [part for report in reports if (part := tables.evaluations(report)) is not None]
    return element("div", *found) if found else None


def _footer() -> Markup:
    return element(
        "footer", "Written by dlrm-report. The page is self-contained: it loads nothing from elsewhere."
    )
