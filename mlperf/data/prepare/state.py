"""State of a preparation, saved so that an interrupted preparation can continue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PHASES = {
    "text": "the end of the text",
    "permute": "the shuffle",
    "permutation": "the computation of the permutation",
    "scatter": "the distribution of the rows",
    "gather": "the writing of the training days",
    "last day": "the writing of the last day",
    "split": "the split of the last day",
    "publish": "the move of the finished files",
}


@dataclass
class PreparationState:
    """Progress at the last checkpoint. The field names are the keys in `state.json`.

    When a preparation continues, its files are truncated to this state.

    phase: "text", "permute", "split" or "publish"; with --reference-files "text", "permutation", "scatter",
        "gather", "last day" or "publish".
    file, offset: number of the text file and the byte in it, unzipped, to continue at.
    line, row: lines and good rows of that file before `offset`.
    lines: lines of all files so far.
    rows_per_day: rows of each day, or of each split if the text is divided into splits, that are kept.
    smallest: the smallest integer in the rows of each day, if negative ones are kept.
    sums: sums over the training rows of the columns that are standardized, as Moments.state returns them.
    bad: number of bad rows, by file name and reason.
    spill_rows, spill_extents: rows and extents in the spill file of the shuffle.
    train_rows, train_crc32: rows in the training file and the CRC-32 of their bytes.
    ids: for each checkpoint, the number of distinct ids of each table so far; empty if their numbering is given.
    unknown: with a given numbering, the number of ids of each table that it lacks.
    cut: number of fields of each categorical column that have more ids than are kept.
    buckets: CRC-32 of each shuffled bucket, None if it is not yet written; None before the shuffle.
    parts: with --reference-files, CRC-32 of the parts of the files from each bucket, as in Gather.checksums.
    checksums: CRC-32 of each split and of the ids, or of each file of the reference, in the last phase.
    """

    phase: str = "text"
    file: int = 0
    offset: int = 0
    line: int = 0
    row: int = 0
    lines: int = 0
    rows_per_day: list[int] = field(default_factory=list)
    smallest: list[int] = field(default_factory=list)
    sums: list[list[float]] = field(default_factory=list)
    bad: dict[str, dict[str, int]] = field(default_factory=dict)
    spill_rows: int = 0
    spill_extents: int = 0
    train_rows: int = 0
    train_crc32: int = 0
    ids: list[list[int]] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    buckets: list[int | None] | None = None
    parts: list[list[int] | None] | None = None
    checksums: dict[str, int] = field(default_factory=dict)

    def position(self, inputs: Sequence[Path]) -> str:
        """Return where a preparation of these text files continues, for a message."""
        if self.phase == "text" and self.file < len(inputs):
            return f"{inputs[self.file].name}, line {self.line + 1:,}"
        return _PHASES[self.phase]

    def bad_rows_by_reason(self) -> dict[str, int]:
        """Return the number of bad rows of all files for each reason."""
        sums: dict[str, int] = {}
        for reasons in self.bad.values():
            for reason, count in reasons.items():
                sums[reason] = sums.get(reason, 0) + count
        return sums
