"""Python API: a run from keywords instead of a command line."""

from __future__ import annotations

from typing import Any

from mlperf.runner.benchmark import run_benchmark
from mlperf.runner.result import Result
from mlperf.settings.from_flags import checked, settings_from
from mlperf.settings.settings import Settings


def run(settings: Settings | None = None, /, **flags: Any) -> Result:
    """Train or evaluate DLRM and return the metrics.

    Flags are keywords named as on the command line, with underscores instead of dashes. Values are Python objects,
    or strings as on the command line. The checks and the printed lines are the same. Instead of flags, a
    `mlperf.settings.settings.Settings` can be passed.

    >>> import mlperf
    >>> result = mlperf.run(mini_batch_size=2, data_size=6, arch_mlp_bot=(4, 3, 2))
    time/loss/accuracy (if enabled):
    Finished training it 1/3 of epoch 0, -1.00 ms/it, loss 0.451893, accuracy 0.000%
    Finished training it 2/3 of epoch 0, -1.00 ms/it, loss 0.402002, accuracy 0.000%
    Finished training it 3/3 of epoch 0, -1.00 ms/it, loss 0.275460, accuracy 0.000%
    >>> result.outcome.value, round(result.training_loss, 6), result.samples
    ('success', 0.27546, 6)

    A run that evaluates on a data set has metrics, for instance `result.metrics.auc`.

    Raises:
        mlperf.util.errors.UsageError: a flag is unknown, out of range or contradicts another.
        mlperf.util.errors.RunError: the run failed; DivergedError, its subclass, if the loss is not finite.
    """
    if settings is None:
        settings = settings_from(flags)
    elif flags:
        raise TypeError("run() takes a Settings object or flags, not both")
    elif not isinstance(settings, Settings):
        raise TypeError(f"run() takes a Settings object or flags as keywords, not a {type(settings).__name__}")
    else:
        settings = checked(settings)
    return run_benchmark(settings)
