"""Time the test metrics and scikit-learn's AUC on the same scores: python bench/measure_auc.py [--scores N].

With torchrun, the metrics of several processes on CPUs beside those of one:
torchrun --standalone --nproc-per-node=2 bench/measure_auc.py
"""

from __future__ import annotations

import checkout  # noqa: F401

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from command_line import script_parser
from mlperf.distributed.group import process_group
from mlperf.distributed.launchers import launched_processes
from mlperf.distributed.processes import current
from mlperf.evaluation.evaluate import metrics_of_run
from mlperf.evaluation.metrics import binary_metrics
from mlperf.settings.kinds import at_least
from mlperf.util.memory import require_memory
from mlperf.util.program import run_program
from mlperf.util.threads import available_cores

FloatArray = npt.NDArray[np.float32]
MIN_SCORES = 100  # among which there are clicks
BYTES_PER_SCORE = 64  # of the sorts, in 64 bits


def main() -> None:
    """Print the median times in seconds, their ratio and the difference of the AUCs."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument(
        "--scores", type=at_least(MIN_SCORES), default=10_000_000, metavar="N", help="number of scores"
    )
    parser.add_argument("--repeats", type=at_least(1), default=3, metavar="N", help="number of calls of each")
    parser.add_argument("--reduced", action="store_true", help="few scores, to test this script")
    flags = parser.parse_args()
    if flags.reduced:
        flags.scores, flags.repeats = 10_000, 1
    require_memory(BYTES_PER_SCORE * flags.scores, f"--scores={flags.scores}")
    stream = np.random.default_rng(1)
    scores = stream.beta(1, 20, flags.scores).astype(np.float32)
    labels = (stream.random(flags.scores) < scores).astype(np.float32)
    processes = launched_processes()
    if processes.size > 1:
        with process_group(processes, "gloo"):
            time_processes(torch.from_numpy(scores), torch.from_numpy(labels), flags.repeats)
    else:
        time_devices(scores, labels, flags.repeats)


def time_devices(scores: FloatArray, labels: FloatArray, repeats: int) -> None:
    """Print the times of scikit-learn and of one process, on the CPU and on a GPU if there is one."""
    on_host = (torch.from_numpy(scores), torch.from_numpy(labels))
    binary_metrics(*on_host)  # compiles
    theirs, their_auc = timed(lambda: float(roc_auc_score(labels, scores)), repeats)
    print(f"{len(scores):,} scores, median of {repeats}")
    print(f"{'':28}{'seconds':>10}{'ratio':>8}{'AUC differs by':>16}")
    print(f"{'scikit-learn, AUC only':28}{theirs:10.3f}{1:8.1f}")
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            print(f"{'all six metrics, GPU':28}{'not measured: no GPU here':>34}")
            continue
        placed = tuple(tensor.to(device) for tensor in on_host)
        ours, our_auc = timed(lambda placed=placed: binary_metrics(*placed).auc, repeats)  # type: ignore[misc]
        print(f"{'all six metrics, ' + device:28}{ours:10.3f}{theirs / ours:8.1f}{abs(our_auc - their_auc):16.1e}")


def time_processes(scores: torch.Tensor, labels: torch.Tensor, repeats: int) -> None:
    """Print the times of one process, which has all scores and cores, and of all processes. All must call it."""
    own = current()
    first, count = own.share(len(scores))
    share = scores[first : first + count], labels[first : first + count]
    lines = []
    if own.is_first:
        torch.set_num_threads(available_cores())
        binary_metrics(scores, labels)  # compiles
        lines.append(("one process", *timed(lambda: binary_metrics(scores, labels).auc, repeats)))
    torch.set_num_threads(max(1, available_cores() // own.local_size))
    metrics_of_run(*share, all_metrics=True)
    shared = timed(lambda: metrics_of_run(*share, all_metrics=True).auc, repeats)
    lines.append((f"{own.size} processes", *shared))
    if own.is_first:
        print(f"{len(scores):,} scores, all six metrics, median of {repeats}")
        print(f"{'':28}{'seconds':>10}{'ratio':>8}{'AUC differs by':>16}")
        for what, seconds, auc in lines:
            print(f"{what:28}{seconds:10.3f}{lines[0][1] / seconds:8.2f}{abs(auc - lines[0][2]):16.1e}")


def timed(auc: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Return the median time of a call of `auc` in seconds, and its result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = auc()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), value


if __name__ == "__main__":
    sys.exit(run_program("measure_auc.py", main))
