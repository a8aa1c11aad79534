"""The pass over the text: blocks are parsed by all cores, and numbered and stored in the order of the text."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.downsampling import NegativeDownsampler
from mlperf.data.criteo.prepare.id_mapping import IdMapper
from mlperf.data.criteo.prepare.parse import REASON_NAMES, BlockParser, Parsed, Rows, describe
from mlperf.data.criteo.prepare.plan import Plan, PreparationSettings
from mlperf.data.criteo.prepare.shuffle import Spill, cut_open
from mlperf.data.criteo.prepare.text_blocks import TextBlock, text_blocks
from mlperf.data.criteo.prepare.work_folder import State
from mlperf.data.schema import ROW_BYTES, TABLES
from mlperf.util.errors import RunError
from mlperf.util.files import write_fully
from mlperf.util.parallel import Portions, Stages, work_in_order
from mlperf.util.progress import Progress

_SHOWN_BAD_ROWS = 5
_MANY_BAD_ROWS = 1000  # so many, and more than the share allowed so far: it will not get better

Numbered = tuple[int, TextBlock]


class RowFile:
    """Rows written one after the other. rows: what the file holds that is to be kept, the rest is cut off."""

    def __init__(self, path: Path, rows: int = 0, checksum: int = 0) -> None:
        self.rows = rows
        self.checksum = checksum
        self._file = cut_open(path, rows * ROW_BYTES)

    def add(self, rows: Rows) -> None:
        """Write the next rows, int32 [N, 40]."""
        write_fully(self._file, rows.data)
        self.checksum = zlib.crc32(rows.data, self.checksum)
        self.rows += len(rows)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Ingest:
    """Reads all text from where `state` stands. Training rows go to `train`, in order or to be permuted."""

    def __init__(
        self,
        settings: PreparationSettings,
        plan: Plan,
        state: State,
        numbering: IdMapper,
        train: RowFile | Spill,
        evaluation: RowFile,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._state = state
        self._numbering = numbering
        self._sampler = NegativeDownsampler(settings.seed, settings.sub_sample_rate)
        self._train = train
        self._evaluation = evaluation
        self._blocks = Portions(self._read())
        done = sum(plan.text_bytes[: state.file]) + state.offset
        what = f"preparing {settings.raw_data_file.name}"
        self._progress = Progress(what, sum(plan.text_bytes), done, sum(state.rows_per_day))

    @property
    def finished(self) -> bool:
        """Whether all text is read."""
        return self._blocks.ended

    def run(self, seconds: float, threads: int) -> None:
        """Go on for some time, or to the end of the text; nothing is under way then."""
        # Few stages hand over faster, many let more cores number at once.
        groups = np.array_split(np.arange(TABLES), max(1, min(TABLES, threads // 2)))
        tables = [[int(table) for table in group] for group in groups]

        def make_worker(gate: Stages) -> Callable[[int, Numbered], None]:
            parser = BlockParser(self._settings.max_ind_range)
            return lambda number, item: self._work(gate, tables, parser, number, item)

        work_in_order(self._blocks.portion(seconds), make_worker, threads=threads, stages=2 + len(tables))
        if self.finished:
            self._judge_bad_rows(final=True)

    def close(self) -> None:
        """End the report of the progress."""
        self._progress.close(finished=self.finished)

    def _read(self) -> Iterator[Numbered]:
        for file in range(self._state.file, len(self._plan.inputs)):
            start = self._state.offset if file == self._state.file else 0
            for block in text_blocks(self._plan.inputs[file], start):
                yield file, block

    def _work(
        self, gate: Stages, tables: list[list[int]], parser: BlockParser, number: int, item: Numbered
    ) -> None:
        """Carry one block through all stages."""
        file, block = item
        parsed = parser.parse(block)
        with gate.turn(0, number):
            first_row = self._place(file, block, parsed)
        rows, staying = parsed.rows, np.arange(len(parsed.rows))
        if self._sampler.rate > 0:
            staying = np.flatnonzero(self._sampler.kept(rows[:, 0], file, first_row))
            rows = rows[staying]
        for stage, group in enumerate(tables, start=1):
            with gate.turn(stage, number):
                self._numbering.number(rows, group)
        with gate.turn(1 + len(tables), number):
            self._store(file, first_row, rows, staying)
            self._progress.add(block.length, len(rows))

    def _place(self, file: int, block: TextBlock, parsed: Parsed) -> int:
        """Count a block's lines; return the good rows of its file before it. RunError for a bad row."""
        state = self._state
        if file != state.file:
            state.file, state.line, state.row = file, 0, 0
        path = self._plan.inputs[file]
        if len(parsed.faults):
            if self._settings.bad_rows == "stop":
                raise describe(path, state.line + 1, block, parsed.faults[0])
            self._count_bad(path, block, parsed)
        first_row = state.row
        state.offset = block.end
        state.line += parsed.lines
        state.row += len(parsed.rows)
        state.lines += parsed.lines
        self._judge_bad_rows(final=False)
        return first_row

    def _count_bad(self, path: Path, block: TextBlock, parsed: Parsed) -> None:
        state = self._state
        shown = sum(sum(reasons.values()) for reasons in state.bad.values())
        for fault in parsed.faults[: max(0, _SHOWN_BAD_ROWS - shown)]:
            print(f"left out: {describe(path, state.line + 1, block, fault)}", file=sys.stderr, flush=True)
        reasons = state.bad.setdefault(path.name, {})
        for reason, count in enumerate(np.bincount(parsed.faults[:, 1])):
            if count:
                name = REASON_NAMES[reason]
                reasons[name] = reasons.get(name, 0) + int(count)

    def _judge_bad_rows(self, *, final: bool) -> None:
        state, share = self._state, self._settings.max_bad_rows
        per_file = {name: sum(reasons.values()) for name, reasons in state.bad.items()}
        bad = sum(per_file.values())
        if bad > share * state.lines and (final or bad > _MANY_BAD_ROWS + share * state.lines):
            raise RunError(
                f"{self._settings.raw_data_file}: {bad} of the {state.lines} rows so far are bad, more than "
                f"--max-bad-rows={share:g} allows, most of them in {max(per_file, key=per_file.__getitem__)}: "
                f"{_reasons(state)}"
            )

    def _store(self, file: int, first_row: int, rows: Rows, staying: npt.NDArray[np.int64]) -> None:
        state, last = self._state, self._plan.days - 1
        if not len(rows):
            return
        for day, part in self._plan.day_slices(file, first_row, staying):
            state.rows_per_day[day] += part.stop - part.start
            if day == last:
                self._evaluation.add(rows[part])
            elif isinstance(self._train, Spill):
                self._train.add(rows[part], day if self._settings.randomize == "day" else 0)
            else:
                self._train.add(rows[part])


def _reasons(state: State) -> str:
    sums: dict[str, int] = {}
    for reasons in state.bad.values():
        for name, count in reasons.items():
            sums[name] = sums.get(name, 0) + count
    return ", ".join(f"{count} {name}" for name, count in sums.items())
