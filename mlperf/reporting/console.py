"""Progress and test results on stdout, in the line formats that other tools parse."""

from __future__ import annotations

import time

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Listener, Position, Progress


class Console(Listener):
    """Prints progress and test results.

    all_metrics: print all six test metrics instead of the accuracy alone.
    """

    def __init__(self, *, print_time: bool, print_wall_time: bool, all_metrics: bool) -> None:
        self.print_time = print_time
        self.print_wall_time = print_wall_time
        self.all_metrics = all_metrics

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Print the heading of the progress lines."""
        print("time/loss/accuracy (if enabled):", flush=True)

    def progress(self, position: Position, progress: Progress) -> None:
        """Print one progress line."""
        milliseconds = progress.ms_per_iteration if self.print_time else -1.0
        wall_time = f" ({time.strftime('%H:%M')})" if self.print_wall_time else ""
        print(
            f"Finished training it {position.iteration}/{position.batches_per_epoch} of epoch {position.epoch}, "
            f"{milliseconds:.2f} ms/it, loss {progress.loss:.6f}, "
            f"accuracy {100 * progress.accuracy:.3f}%{wall_time}",
            flush=True,
        )

    def evaluation_start(self, position: Position) -> None:
        """Print the position of the evaluation in the run."""
        print(
            f"Testing at - {position.iteration}/{position.batches_per_epoch} of epoch {position.epoch},",
            flush=True,
        )

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Print the metrics."""
        print_metrics(metrics, best, all_metrics=self.all_metrics)


def print_metrics(metrics: Metrics, best: Metrics, *, all_metrics: bool) -> None:
    """Print the metrics of one evaluation: accuracies in percent, other metrics with 4 digits."""
    accuracy, best_accuracy = 100 * metrics.accuracy, 100 * best.accuracy
    if not all_metrics:
        print(f" accuracy {accuracy:.3f} %, best {best_accuracy:.3f} %", flush=True)
        return
    print(
        f"recall {metrics.recall:.4f}, precision {metrics.precision:.4f}, f1 {metrics.f1:.4f}, "
        f"ap {metrics.average_precision:.4f}, auc {metrics.auc:.4f}, best auc {best.auc:.4f}, "
        f"accuracy {accuracy:.3f} %, best accuracy {best_accuracy:.3f} %",
        flush=True,
    )
