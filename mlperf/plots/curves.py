"""Curves of a run, read from a log: console output, or a compliance log.

Console output may also come from the original implementation, whose lines differ slightly. A compliance log of any
submitter has lines with `:::MLLOG` and JSON; its `eval_accuracy` is the AUC.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from mlperf.util.errors import RunError

_TRAINING = re.compile(
    r"Finished training it (?P<it>\d+)/(?P<n>\d+) of epoch (?P<epoch>\d+).*?loss (?P<loss>[-\d.eE+]+)"
    r"(?:.*?accuracy (?P<accuracy>[\d.]+) ?%)?"
)
_TESTING = re.compile(r"Testing at - (?P<it>\d+)/(?P<n>\d+) of epoch (?P<epoch>\d+)")
_AUC = re.compile(r"(?:^|[ ,])auc (?P<auc>[\d.]+)")
_ACCURACY = re.compile(r"(?:^|[ ,])accuracy (?P<accuracy>[\d.]+) ?%")


@dataclass(frozen=True)
class Point:
    """A value and the time at which it was measured.

    iterations: batches trained since the start of the run; None if the log does not contain them. epochs: the same
    in epochs.
    """

    iterations: float | None
    epochs: float
    value: float


@dataclass
class Curves:
    """The curves of one run. Accuracies and AUC are in [0, 1].

    loss, train_accuracy: training metrics. accuracy, auc: metrics on the test split.
    """

    loss: list[Point] = field(default_factory=list)
    train_accuracy: list[Point] = field(default_factory=list)
    accuracy: list[Point] = field(default_factory=list)
    auc: list[Point] = field(default_factory=list)

    @classmethod
    def of_log(cls, path: Path) -> Curves:
        """Return the curves in a log of either kind. RunError if it cannot be read or contains none."""
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        curves = cls()
        curves._read_console(lines)
        if not (curves.auc or curves.accuracy):
            curves._read_compliance([line for line in lines if ":::MLL" in line])
        if not (curves.loss or curves.accuracy or curves.auc):
            raise RunError(f"{path}: contains neither training or test lines of this benchmark nor eval_accuracy")
        return curves

    def _read_console(self, lines: list[str]) -> None:
        tested: tuple[float, float] | None = None
        for line in lines:
            if match := _TRAINING.search(line):
                at = _position(match)
                self.loss.append(Point(*at, float(match["loss"])))
                if match["accuracy"]:
                    self.train_accuracy.append(Point(*at, float(match["accuracy"]) / 100))
                continue
            if match := _TESTING.search(line):
                tested = _position(match)
            # The metrics are on the next line or, in some versions, on the same line.
            if tested is not None and (accuracy := _ACCURACY.search(line)):
                self.accuracy.append(Point(*tested, float(accuracy["accuracy"]) / 100))
                if auc := _AUC.search(line):
                    self.auc.append(Point(*tested, float(auc["auc"])))
                tested = None

    def _read_compliance(self, lines: list[str]) -> None:
        events = []
        for line in lines:
            try:
                events.append(json.loads(line[line.index("{") :]))
            except ValueError:
                continue  # the line is truncated or mixed with other output
        # Some submitters count epochs from 1, others from 0: infer it from the first epoch number.
        numbers = [_epoch_num(event) for event in events if event.get("key") in ("epoch_start", "block_start")]
        known = [number for number in numbers if number is not None]
        base = 1.0 if known and known[0] >= 1 else 0.0
        for event in events:
            epoch = _epoch_num(event)
            value = event.get("value")
            if event.get("key") == "eval_accuracy" and epoch is not None and isinstance(value, int | float):
                self.auc.append(Point(None, epoch - base, float(value)))


def _position(match: re.Match[str]) -> tuple[float, float]:
    """Return iterations and epochs since the start of the run."""
    iteration, batches, epoch = (int(match[name]) for name in ("it", "n", "epoch"))
    return epoch * batches + iteration, epoch + iteration / max(batches, 1)


def _epoch_num(event: dict[str, object]) -> float | None:
    """Return the epoch number in the metadata of an event, None if there is none."""
    metadata = event.get("metadata")
    if not isinstance(metadata, dict):
        return None
    for name in ("epoch_num", "first_epoch_num"):
        if isinstance(metadata.get(name), int | float):
            return float(metadata[name])
    return None
