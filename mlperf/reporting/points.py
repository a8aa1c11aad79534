"""Points of curves over the iterations, taken from the records of a run."""

from __future__ import annotations

from mlperf.reporting.metrics_reader import Record

_TRAIN = ("loss", "accuracy", "ms_per_iteration", "learning_rate")
_TEST = (
    *("accuracy", "auc", "f1", "recall", "precision", "average_precision"),
    *("best_accuracy", "best_auc", "seconds"),
)


def points_of(record: Record) -> dict[str, float]:
    """Return the values of a record that are defined, by the names of their curves, such as "train/loss".

    Empty for records other than progress reports and evaluations.
    """
    if record["event"] == "progress":
        names = {f"train/{name}": record[name] for name in _TRAIN}
    elif record["event"] == "evaluation_stop":
        names = {f"test/{name}": record[name] for name in _TEST}
    else:
        return {}
    return {name: float(value) for name, value in names.items() if value is not None}


def iteration_of(record: Record) -> int:
    """Return the number of batches that were trained before a record with a position, over all epochs."""
    return int(record["epoch"] * record["batches_per_epoch"] + record["iteration"])
