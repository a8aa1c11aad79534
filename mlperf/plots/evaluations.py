"""Evaluations in a compliance log, and the time in epochs at which each was made.

Submitters number evaluations in their own ways. `epoch_num` may be a position in epochs that starts at 0 or at 1
(1.05, 1.10, ...), the number of the epoch that ended (1, 2, ...) or of the evaluation (also 1, 2, ...), or the
number of iterations or samples. Steps in the log, and those that its schedule plans, tell these apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from mlperf.benchmarks import Benchmark
from mlperf.compliance.log_reader import Event, Log, is_fraction, is_number

# Names in metadata under which submitters log the iterations, or samples, trained before an evaluation.
_STEP_NAME = re.compile(
    r"(global_|current_|train_|num_)?((step|iter|iteration)(s|_num|_count)?|batch(es|_num|_count))"
)
_SAMPLE_NAME = re.compile(r"(num_|train_|trained_)?samples?(_num|_count)?")
# Other events of an evaluation, or of the block before it, which may contain them.
_RELATED_EVENTS = ("eval_start", "eval_stop", "block_stop", "epoch_stop")
# A run may take a little longer than its schedule plans, but not this many times as long.
_TOLERANCE = 1.5
# Settings whose sum is the last step of the schedule.
_DECAY = ("schedule.decay_start_step", "schedule.decay_steps")
# No run takes so many epochs: larger numbers are iterations or samples.
_MAX_EPOCHS = 100

_Position = tuple[float | None, float]  # iterations (None if unknown) and epochs since the start of the run


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of a run in order. If several processes log the same evaluation, their mean is taken.

    points: iterations (None if unknown), epochs and AUC of each.
    counted: whether the log numbers evaluations instead of epochs, and no step tells the time of each. Then the
        interval that the rules require is assumed.
    """

    points: tuple[tuple[float | None, float, float], ...]
    counted: bool


class _Unit(Enum):
    """What `epoch_num` is."""

    POSITION = auto()  # in epochs, continuous
    EPOCH = auto()  # number of the epoch that ended
    EVALUATION = auto()
    ITERATION = auto()
    SAMPLE = auto()


@dataclass(frozen=True)
class _Epoch:
    """Sizes that turn iterations and samples into epochs, as far as a log contains them.

    samples: training samples in an epoch. steps: iterations in an epoch, 0 if unknown.
    planned: epochs after which the learning rate schedule ends, 0 if unknown.
    first: number of the first epoch or block, None if unknown.
    evaluations: evaluations in an epoch that the rules require.
    """

    samples: float
    steps: float
    planned: float
    first: float | None
    evaluations: int

    @property
    def limit(self) -> float:
        """More epochs than this are not plausible."""
        return _TOLERANCE * max(self.planned, 1.0)


def read_evaluations(log: Log, benchmark: Benchmark) -> Evaluations:
    """Return the evaluations of a log. Values that are not a fraction, as an AUC is, are left out."""
    events = [event for event in log.all("eval_accuracy") if is_fraction(event.value)]
    if not events:
        return Evaluations((), counted=False)
    epoch = _epoch(log, benchmark, before_line=events[0].line)
    numbers = sorted({number for event in events if (number := _epoch_num(event)) is not None})
    typed_as_integers = all(isinstance(event.metadata.get("epoch_num"), int) for event in events)
    unit = _unit(numbers, epoch, typed_as_integers=typed_as_integers)
    steps = _steps_by_number(log, epoch)
    values: dict[_Position, list[float]] = {}
    counted = False
    for number, event in enumerate(events, start=1):
        at = _logged_steps(event, epoch) or steps.get(_epoch_num(event))
        if at is None or unit is _Unit.POSITION:
            iterations = None if at is None else at[0]
            own = _epoch_num(event) if numbers else number
            if own is None:
                continue
            at = _position(own, iterations, unit, numbers, epoch)
            counted = counted or unit is _Unit.EVALUATION
        values.setdefault(at, []).append(float(event.value))
    means = ((*at, sum(found) / len(found)) for at, found in values.items())
    return Evaluations(tuple(sorted(means, key=lambda point: point[1])), counted)


def _unit(numbers: Sequence[float], epoch: _Epoch, *, typed_as_integers: bool) -> _Unit:
    """Return what the numbers are. numbers: `epoch_num` of all evaluations, ascending, each once."""
    if not numbers:
        return _Unit.EVALUATION
    whole = all(number.is_integer() for number in numbers)
    # Whole numbers may be positions at the ends of epochs, but those follow the number of the first epoch.
    if not whole or not (typed_as_integers or (epoch.first is not None and numbers[0] <= epoch.first)):
        return _Unit.POSITION
    if numbers[0] > _MAX_EPOCHS and epoch.steps and numbers[-1] / epoch.steps <= epoch.limit:
        return _Unit.ITERATION
    if numbers[0] > _MAX_EPOCHS and numbers[-1] / epoch.samples <= epoch.limit:
        return _Unit.SAMPLE
    consecutive = all(after - before == 1 for before, after in pairwise(numbers))
    impossible = epoch.planned > 0 and numbers[-1] > epoch.limit
    return _Unit.EVALUATION if consecutive and impossible else _Unit.EPOCH


def _position(
    number: float, iterations: float | None, unit: _Unit, numbers: Sequence[float], epoch: _Epoch
) -> _Position:
    """Return the position of the evaluation with this number. iterations: logged beside it, None if not."""
    lowest = numbers[0] if numbers else 1.0
    if unit is _Unit.ITERATION:
        return number, number / epoch.steps
    if unit is _Unit.SAMPLE:
        return None, number / epoch.samples
    if unit is _Unit.EVALUATION:
        return None, (number - min(lowest, 1.0) + 1) / epoch.evaluations
    if unit is _Unit.EPOCH:
        first = epoch.first if epoch.first is not None else min(lowest, 1.0)
        return iterations, number - first + 1
    base = 1.0 if lowest >= 1 and (epoch.first is None or epoch.first >= 1) else 0.0
    return iterations, number - base


def _logged_steps(event: Event, epoch: _Epoch) -> _Position | None:
    """Return the position that steps or samples in the metadata give, None if there are none."""
    for name, count in event.metadata.items():
        if is_number(count) and epoch.steps and _STEP_NAME.fullmatch(name):
            return float(count), count / epoch.steps
        if is_number(count) and _SAMPLE_NAME.fullmatch(name):
            return None, count / epoch.samples
    return None


def _steps_by_number(log: Log, epoch: _Epoch) -> dict[float | None, _Position]:
    """Return the positions that other events than the evaluations give, by `epoch_num`."""
    related = [event for event in log.events if event.key in _RELATED_EVENTS and _epoch_num(event) is not None]
    found = {_epoch_num(event): _logged_steps(event, epoch) for event in related}
    return {number: at for number, at in found.items() if at is not None}


def _epoch_num(event: Event) -> float | None:
    """Return the number in the metadata of an evaluation, epoch or block, None if there is none."""
    for name in ("epoch_num", "first_epoch_num"):
        number = event.metadata.get(name)
        if is_number(number):
            return float(number)
    return None


def _epoch(log: Log, benchmark: Benchmark, before_line: int) -> _Epoch:
    """Return the sizes of an epoch.

    Before the first evaluation, `train_samples` is the size of the training split. At the end, some submitters log
    under the same key how many samples were trained on.
    """
    logged = (event.value for event in log.all("train_samples") if event.line < before_line)
    samples = next((float(value) for value in logged if _is_positive(value)), float(benchmark.data.train_samples))
    batch = log.value("global_batch_size")
    steps = samples / batch if _is_positive(batch) else 0.0
    planned = [log.value(entry.key) for entry in benchmark.hyperparameters if entry.setting in _DECAY]
    last_step = sum(value for value in planned if is_number(value))
    starts = (_epoch_num(event) for event in log.events if event.key in ("epoch_start", "block_start"))
    first = next((number for number in starts if number is not None), None)
    return _Epoch(samples, steps, last_step / steps if steps else 0.0, first, benchmark.evaluations_per_epoch)


def _is_positive(value: object) -> bool:
    return is_number(value) and value > 0
