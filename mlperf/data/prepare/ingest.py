"""The pass over the raw text: all cores parse blocks; ids are mapped and rows stored in the order of the text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mlperf.data.prepare.division import Part
from mlperf.data.prepare.downsampling import NegativeDownsampler
from mlperf.data.prepare.mapper import Mapper
from mlperf.data.prepare.moments import Moments
from mlperf.data.prepare.parse import smallest_integer
from mlperf.data.prepare.plan import Plan
from mlperf.data.prepare.row_file import RowFile
from mlperf.data.prepare.shuffle import SpillFile
from mlperf.data.prepare.state import PreparationState
from mlperf.data.prepare.text_format import Block, Parse, ParsedRows, TextFormat
from mlperf.data.schema import Rows
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError
from mlperf.util.parallel import Portions, Stages, run_in_order
from mlperf.util.progress import Progress

_SHOWN_BAD_ROWS = 5
# Stop early when the number of bad rows exceeds the allowance so far by this many.
_EARLY_STOP_BAD_ROWS = 1000

FileBlock = tuple[int, Block]  # the number of the input file and a block of it

_log = logging.getLogger(__name__)


class Ingest:
    """Reads the text from the position in `state` on and keeps `state` up to date.

    train: receives the training rows, in order or to be shuffled. held_out: for each other part, a day or split,
        what receives its rows.
    moments: sums over the training rows.
    """

    def __init__(
        self,
        settings: PreparationSettings,
        plan: Plan,
        state: PreparationState,
        text: TextFormat,
        mapper: Mapper,
        train: RowFile | SpillFile,
        held_out: Mapping[int, RowFile],
        moments: Moments,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._state = state
        self._text = text
        self._mapper = mapper
        self._moments = moments
        self._downsampler = NegativeDownsampler(settings.seed, settings.sub_sample_rate)
        self._train = train
        self._held_out = held_out
        self._blocks = Portions(self._read())
        done_bytes = sum(plan.text_bytes[: state.file]) + state.offset
        task = f"preparing {settings.raw_data_file.name}"
        self._progress = Progress(task, sum(plan.text_bytes), done_bytes, sum(state.rows_per_day))

    @property
    def finished(self) -> bool:
        """Whether all text has been read."""
        return self._blocks.exhausted

    def run(self, seconds: float, threads: int) -> None:
        """Process blocks for `seconds` or until the end of the text; returns when no block is in progress."""
        # Each group of tables is a stage. Fewer stages have less overhead; more let more cores map ids.
        tables = self._text.layout.schema.tables
        groups = np.array_split(np.arange(tables), max(1, min(tables, threads // 2)))
        table_groups = [[int(table) for table in group] for group in groups]

        def make_worker(stages: Stages) -> Callable[[int, FileBlock], None]:
            parse = self._text.parser()
            return lambda number, item: self._process(stages, table_groups, parse, number, item)

        blocks = self._blocks.portion(seconds)
        run_in_order(blocks, make_worker, threads=threads, stages=2 + len(table_groups))
        if self.finished:
            self._check_bad_rows(final=True)

    def close(self) -> None:
        """End the progress report."""
        self._progress.close(finished=self.finished)

    def _read(self) -> Iterator[FileBlock]:
        for file in range(self._state.file, len(self._plan.inputs)):
            start = self._state.offset if file == self._state.file else 0
            for block in self._text.blocks(file, start):
                yield file, block

    def _process(
        self, stages: Stages, table_groups: list[list[int]], parse: Parse, number: int, item: FileBlock
    ) -> None:
        """Parse block `number`, then pass it through the stages: count lines, map ids, store rows."""
        file, block = item
        parsed = parse(file, block)
        with stages.turn(0, number):
            first_row = self._count(file, block, parsed)
        rows, keys, splits = parsed.rows, parsed.keys, parsed.splits
        kept = np.arange(len(rows))
        if self._downsampler.rate > 0:
            kept = np.flatnonzero(self._downsampler.kept(rows[:, 0], file, first_row))
            rows = rows[kept]
            keys = None if keys is None else keys[kept]
            splits = None if splits is None else splits[kept]
        for stage, tables in enumerate(table_groups, start=1):
            with stages.turn(stage, number):
                self._mapper.map(rows, tables, keys)
        parts = self._plan.division.parts(file, first_row, kept, splits)
        with stages.turn(1 + len(table_groups), number):
            self._store(rows, parts)
            self._progress.add(block.length, len(rows))

    def _count(self, file: int, block: Block, parsed: ParsedRows) -> int:
        """Count the lines of a block; return the number of good rows of its file before it.

        Raises RunError for a bad row, or for too many of them if they are left out.
        """
        state = self._state
        if file != state.file:
            state.file, state.line, state.row = file, 0, 0
        if len(parsed.faults):
            if self._settings.bad_rows == "stop":
                raise self._text.error(file, state.line, block, parsed.faults[0])
            self._count_bad_rows(file, block, parsed)
        first_row = state.row
        state.offset = block.end
        state.line += parsed.lines
        state.row += len(parsed.rows)
        state.lines += parsed.lines
        if parsed.cut is not None:
            state.cut = [before + count for before, count in zip(state.cut, parsed.cut.tolist(), strict=True)]
        self._check_bad_rows(final=False)
        return first_row

    def _count_bad_rows(self, file: int, block: Block, parsed: ParsedRows) -> None:
        state = self._state
        shown = sum(state.bad_rows_by_reason().values())
        for fault in parsed.faults[: max(0, _SHOWN_BAD_ROWS - shown)]:
            _log.warning(f"left out: {self._text.error(file, state.line, block, fault)}")
        reasons = state.bad.setdefault(self._plan.inputs[file].name, {})
        for reason, count in enumerate(np.bincount(parsed.faults[:, 1])):
            if count:
                name = self._text.reasons[reason]
                reasons[name] = reasons.get(name, 0) + int(count)

    def _check_bad_rows(self, *, final: bool) -> None:
        """Raise RunError if too many rows are bad (`final`), or if the limit can no longer be met."""
        state, max_fraction = self._state, self._settings.max_bad_rows
        per_file = {name: sum(reasons.values()) for name, reasons in state.bad.items()}
        bad, allowed = sum(per_file.values()), max_fraction * state.lines
        if bad > allowed + (0 if final else _EARLY_STOP_BAD_ROWS):
            reasons = ", ".join(f"{count} {name}" for name, count in state.bad_rows_by_reason().items())
            raise RunError(
                f"{self._settings.raw_data_file}: {bad} of the {state.lines} rows so far are bad, more than "
                f"--max-bad-rows={max_fraction:g} allows, most of them in "
                f"{max(per_file, key=per_file.__getitem__)}: {reasons}"
            )

    def _store(self, rows: Rows, parts: Sequence[Part]) -> None:
        state = self._state
        for part, which in parts:
            if isinstance(which, slice) and which.start == which.stop:
                continue
            selected = rows[which]
            state.rows_per_day[part] += len(selected)
            if self._settings.traits.keeps_negative:
                state.smallest[part] = min(state.smallest[part], smallest_integer(selected))
            if part in self._held_out:
                self._held_out[part].append(selected)
                continue
            self._moments.add(selected)
            if isinstance(self._train, SpillFile):
                self._train.append(selected, part if self._settings.randomize == "day" else 0)
            else:
                self._train.append(selected)
