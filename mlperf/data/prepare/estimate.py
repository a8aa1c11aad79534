"""What a preparation reads and writes, and how long its text takes, estimated from the beginning of its inputs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

from mlperf.data.prepare.division import ByFile
from mlperf.data.prepare.plan import Plan, disk_needed, find_inputs
from mlperf.data.prepare.request import Request
from mlperf.data.prepare.text_format import TextFormat
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.failures import system_failures
from mlperf.util.threads import available_cores

_BLOCKS = 3  # with which the speed is measured


@dataclass(frozen=True)
class PreparationEstimate:
    """inputs: number of files. text_bytes: their size, unzipped. rows: good rows, all splits together.

    disk_bytes: peak use of the disk, including the prepared files. file_bytes: size of the prepared files.
    text_seconds: time of parsing the text and numbering its ids, on all cores. The preparation also decompresses,
    shuffles and writes.
    """

    inputs: int
    text_bytes: int
    rows: int
    disk_bytes: int
    file_bytes: int
    text_seconds: float


def estimate(settings: PreparationSettings) -> PreparationEstimate:
    """Read the beginning of the inputs. RunError if one is missing or damaged, UsageError as for `prepare`."""
    with system_failures(settings.raw_data_file, "the raw data cannot be read"):
        request = Request.of(settings)
        inputs = find_inputs(request)
        text = request.text_format(inputs)
        sizes = [text.size(file) for file in range(len(inputs))]
        text_bytes, row_bytes = sum(size for size, _ in sizes), [size for _, size in sizes]
        # Without days, all rows may be training rows: the need is then at most a little too large.
        has_days = len(inputs) > 1 and not text.layout.has_splits
        parts = tuple(row_bytes) if has_days else (sum(row_bytes), 0)
        division = ByFile(tuple(range(len(inputs))))
        plan = Plan(tuple(inputs), tuple(size for size, _ in sizes), parts, division, sum(row_bytes))
        return PreparationEstimate(
            inputs=len(inputs),
            text_bytes=text_bytes,
            rows=sum(row_bytes) // text.layout.schema.row_bytes,
            disk_bytes=disk_needed(plan, request, text.layout),
            file_bytes=sum(row_bytes) * (2 if settings.write_npz else 1),
            text_seconds=_text_seconds(text, text_bytes),
        )


def _text_seconds(text: TextFormat, text_bytes: int) -> float:
    """Return the time that all inputs take on all cores, measured with a few blocks of the first one."""
    parse, mapper, tables = text.parser(), text.mapper(), range(text.layout.schema.tables)
    seconds, size = 0.0, 0
    for number, block in enumerate(islice(text.blocks(0, 0), _BLOCKS)):
        for is_measured in (False, True) if number == 0 else (True,):  # first, loops are compiled or loaded
            started = time.perf_counter()
            parsed = parse(0, block)
            mapper.map(parsed.rows, tables, parsed.keys)
            if is_measured:
                seconds += time.perf_counter() - started
                size += block.length
    return seconds / size * text_bytes / available_cores()
