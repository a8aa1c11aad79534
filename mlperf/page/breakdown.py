"""Where the time of runs went (--time-breakdown): one bar per run, and the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlperf.compliance.log_reader import is_number
from mlperf.page.elements import Content, Markup, element, table
from mlperf.page.numbers import duration, significant
from mlperf.page.runs import RunReport
from mlperf.reporting.time_table import TRAINING
from mlperf.util.errors import RunError
from mlperf.util.plural import counted
from mlperf.util.stopwatch import OTHER

_MIN_LABELLED = 0.04  # share of a bar that has room for its percentage
COLORS = 24
_DIVIDED = TRAINING  # the phase whose parts are drawn; of the others, the bar shows the sum


@dataclass(frozen=True)
class _Part:
    """A phase of a run, or a part of one.

    ms: per step or batch of the phase, None where there are none. spread: the least and the greatest of a process,
    None for one process. reading: threads that read ahead beside a phase, and their milliseconds per step or
    batch.
    """

    name: str
    seconds: float
    ms: float | None
    spread: tuple[float, float] | None
    parts: tuple[_Part, ...] = ()
    reading: tuple[int, float] | None = None


@dataclass(frozen=True)
class _Times:
    """The time of a run, in phases."""

    label: str
    phases: tuple[_Part, ...]

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def drawn(self) -> Iterator[_Part]:
        """The pieces of the bar."""
        for phase in self.phases:
            yield from phase.parts if phase.name == _DIVIDED and phase.parts else (phase,)


def breakdowns(reports: Sequence[RunReport]) -> Markup | None:
    """Return bars and a table of the time of each part; None if no run has any. RunError if one is wrong."""
    found = [_times(report, report.breakdown) for report in reports if report.breakdown is not None]
    if not found:
        return None
    names = _last_other(part.name for times in found for part in times.drawn)
    colors = {name: number % COLORS for number, name in enumerate(names)}
    longest = max(times.seconds for times in found) or 1.0
    bars = [_bar(times, colors, longest, has_label=len(found) > 1) for times in found]
    return element("div", element("div", *bars, class_="bars"), _table(found, colors), *_notes(found))


def _times(report: RunReport, content: Mapping[str, Any]) -> _Times:
    phases = content.get("phases")
    if not isinstance(phases, list):
        raise RunError(f"{report.path}: the time breakdown has no list of phases")
    return _Times(report.label, tuple(_part(report, each, is_phase=True) for each in phases))


def _part(report: RunReport, part: object, *, is_phase: bool = False) -> _Part:
    values = part if isinstance(part, Mapping) else {}
    name, seconds, parts = values.get("name"), values.get("seconds"), values.get("parts", [])
    if not isinstance(name, str) or not is_number(seconds) or seconds < 0 or not isinstance(parts, list):
        raise RunError(f"{report.path}: a part of the time breakdown has no name, or no seconds of at least 0")
    least, mean, greatest = (values.get(key) for key in ("min_ms", "ms", "max_ms"))
    spread = (least, greatest) if is_number(least) and is_number(greatest) else None
    ms = mean if is_number(mean) else None
    own = tuple(_part(report, each) for each in parts) if is_phase else ()
    return _Part(name, seconds, ms, spread, own, _threads(values.get("read_ahead")))


def _threads(content: object) -> tuple[int, float] | None:
    """Return the number of threads that read ahead, and their milliseconds per step or batch."""
    values = content if isinstance(content, Mapping) else {}
    threads, milliseconds = values.get("threads"), values.get("ms")
    return (int(threads), milliseconds) if is_number(threads) and is_number(milliseconds) else None


def _bar(times: _Times, colors: Mapping[str, int], longest: float, *, has_label: bool) -> Markup:
    total, pieces = times.seconds, []
    for part in times.drawn:
        share, width = part.seconds / total if total else 0.0, part.seconds / longest
        label = f"{100 * share:.0f} %" if width >= _MIN_LABELLED else None
        pieces.append(
            element(
                "span",
                label,
                class_=f"part p{colors[part.name]}",
                style=f"width:{100 * width:.3f}%",
                title=f"{part.name}: {100 * share:.1f} %, {duration(part.seconds)}",
            )
        )
    name = element("p", f"{times.label}: {duration(total)}", class_="name") if has_label else None
    return element("div", name, element("div", *pieces, class_="bar"))


def _notes(found: Sequence[_Times]) -> Iterator[Markup]:
    """Yield what threads did beside the run, which is no part of its time."""
    for times in found:
        for phase in times.phases:
            if phase.reading is not None:
                threads, ms = phase.reading
                of = f"{times.label}: beside" if len(found) > 1 else "Beside"
                what = f"{counted(threads, 'thread')} read and decoded batches"
                yield element("p", f"{of} the {phase.name}, {what}: {significant(ms)} ms each.", class_="note")


def _table(found: Sequence[_Times], colors: Mapping[str, int]) -> Markup:
    """Return time, share and milliseconds of each part, phase by phase; of several runs, not the time."""
    head: list[Content] = [""] if len(found) > 1 else ["", "time"]
    for times in found:
        of = f"{times.label}, " if len(found) > 1 else ""
        head += [f"{of}percent", f"{of}ms per step or batch"]
    rows: list[list[Content]] = []
    for name in dict.fromkeys(phase.name for times in found for phase in times.phases):
        phases = [next((phase for phase in times.phases if phase.name == name), None) for times in found]
        rows.append(_row(name, phases, found, None if name == _DIVIDED else colors.get(name), level=0))
        parts = _last_other(part.name for phase in phases if phase is not None for part in phase.parts)
        for part in parts if len(parts) > 1 else ():
            of_phase = [() if phase is None else phase.parts for phase in phases]
            mine = [next((each for each in own if each.name == part), None) for own in of_phase]
            rows.append(_row(part, mine, found, colors.get(part) if name == _DIVIDED else None, level=1))
    return table(head, rows, class_="times")


def _last_other(names: Iterable[str]) -> list[str]:
    """Return the distinct names in order, and "other" at the end."""
    return sorted(dict.fromkeys(names), key=lambda name: name == OTHER)


def _row(
    name: str, parts: Sequence[_Part | None], found: Sequence[_Times], color: int | None, *, level: int
) -> list[Content]:
    mark = None if color is None else element("span", class_=f"dot p{color}")
    row: list[Content] = [element("th", mark, name, scope="row", class_=f"level{level}")]
    for part, times in zip(parts, found, strict=True):
        share = 100 * part.seconds / times.seconds if part is not None and times.seconds else None
        time = [None if part is None else duration(part.seconds)] if len(found) == 1 else []
        cells = (
            *time,
            None if share is None else f"{share:.1f}",
            None if part is None else _per_step(part),
        )
        row += [element("td", cell, class_="number") for cell in cells]
    return row


def _per_step(part: _Part) -> str | None:
    """Return the milliseconds per step, and of several processes their range."""
    if part.spread is None or part.ms is None:
        return significant(part.ms)
    least, greatest = part.spread
    return f"{significant(part.ms)} ({significant(least)} to {significant(greatest)})"
