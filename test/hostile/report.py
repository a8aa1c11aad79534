"""The table of an attack, as it stands in the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hostile.pool import IDENTICAL, PASSED, REFUSED, UNCHECKED, Verdict

_COLUMNS = ("tried", "refused in one line", "read like the undamaged", "no checksums", "passed", "failed")


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the numbers of cases by kind, as a table in Markdown."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        row = counts.setdefault(verdict.case.kind, Counter())
        row["tried"] += 1
        row[verdict.verdict if verdict.failure is None else "failed"] += 1
    lines = [f"| kind | {' | '.join(_COLUMNS)} |", "|---|" + "---|" * len(_COLUMNS)]
    for kind in sorted(counts):
        row = counts[kind]
        cells = (row["tried"], row[REFUSED], row[IDENTICAL], row[UNCHECKED], row[PASSED], row["failed"])
        lines.append(f"| {kind} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines)
