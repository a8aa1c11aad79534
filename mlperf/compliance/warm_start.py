"""Logs of runs that did not start from scratch: from weights, or after the beginning of the first epoch."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from mlperf.compliance.log_reader import Event, Log, as_text, is_number
from mlperf.util.errors import RunError

MARK = "started_from"  # metadata of run_start in logs of this project; absent if the run started from scratch
NOT_FROM_SCRATCH = "the run did not start from scratch"
_COUNTED_FROM = (0, 1)  # submitters number the first epoch 0 or 1
_USUAL_INTERVAL = 1 / 20  # epochs between two evaluations, by the rules
_MIN_EVALUATIONS = 4  # that show a regular interval


def warm_start(log: Log) -> tuple[int, str] | None:
    """Return line and description of the event that shows that a run did not start from scratch, or None.

    That is the mark of this project or, in any log, the number of the first epoch, block or evaluation.
    """
    for event in log.all("run_start"):
        if event.metadata.get(MARK) is not None:
            source = event.metadata[MARK]
            text = source if isinstance(source, str) else as_text(source)
            return event.line, f"{NOT_FROM_SCRATCH} but from {text}"
    evaluations = [event for event in log.all("eval_accuracy") if is_number(event.metadata.get("epoch_num"))]
    starts = [
        (event, key, event.metadata[name])
        for key, name in (("epoch_start", "epoch_num"), ("block_start", "first_epoch_num"))
        for event in log.all(key)[:1]
        if is_number(event.metadata.get(name))
    ]
    for event, key, number in starts:
        if not _is_beginning(number, evaluations):
            return event.line, f"{NOT_FROM_SCRATCH}: the first {key} is at epoch {number:.4g}"
    return _late_evaluation(evaluations)


def require_from_scratch(log: Log) -> None:
    """Raise RunError, naming the line, if a run did not start from scratch: it is not a result."""
    if (start := warm_start(log)) is not None:
        line, text = start
        raise RunError(f"{log.path}:{line}: {text}")


def _is_beginning(number: float, evaluations: list[Event]) -> bool:
    """Return whether the first epoch or block starts at the beginning, numbered by its start or by its end.

    Blocks between evaluations may have the number of the evaluation that ends them, such as 1.05.
    """
    if number in _COUNTED_FROM:
        return True
    numbers = _epoch_numbers(evaluations)
    if number == int(number) or not numbers:
        return False
    interval = numbers[1] - numbers[0] if len(numbers) > 1 else _USUAL_INTERVAL
    ends_with_evaluation = abs(numbers[0] - number) <= interval / 100
    return ends_with_evaluation and any(abs(number - interval - base) <= interval / 4 for base in _COUNTED_FROM)


def _late_evaluation(evaluations: list[Event]) -> tuple[int, str] | None:
    """Return the first of regular evaluations if earlier ones are missing."""
    numbers = _epoch_numbers(evaluations)
    intervals = [later - earlier for earlier, later in pairwise(numbers)]
    if len(numbers) < _MIN_EVALUATIONS or max(intervals[:-1]) > 1.5 * median(intervals):
        return None
    interval = median(intervals)
    beginning = max(number for number in _COUNTED_FROM if number <= max(numbers[0], 0))
    if numbers[0] <= beginning + 2.5 * interval:
        return None
    text = f"the first evaluation is at epoch {numbers[0]:.4g}, later ones follow every {interval:.2g} epochs"
    return evaluations[0].line, f"{NOT_FROM_SCRATCH}: {text}"


def _epoch_numbers(evaluations: list[Event]) -> list[float]:
    """Return the different epoch numbers in ascending order; several nodes may repeat them."""
    return sorted({float(event.metadata["epoch_num"]) for event in evaluations})
