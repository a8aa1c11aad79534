"""Memory that a run needs at least, compared with what is available before anything is allocated.

The sizes are lower bounds: a run is refused only if it cannot succeed. A run whose allocation fails nevertheless
also ends with one line. Each of several processes needs its share of the tables and of a batch; those on one
machine share its memory.

B batch, T tables, D embedding dimension, F = T + 1 features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.key_table import BYTES_PER_KEY
from mlperf.data.source import MIN_GROUP_ROWS
from mlperf.data.synthetic.random_batches import STATE_BYTES
from mlperf.distributed.processes import current
from mlperf.engines.choose import uses_torchrec
from mlperf.engines.torchrec.placement import TableMemory
from mlperf.models.dlrm import ROW_TYPES, Architecture, top_widths
from mlperf.models.layers.embedding.compressed_tables import compressed_bytes
from mlperf.optim.optimizer import Optimizer
from mlperf.registry import OPTIMIZERS, load
from mlperf.runner.data import reading_threads
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError
from mlperf.util.memory import MemoryNeed, MemorySaving, available_share, require_memory_for

_TABLES = (
    "the embedding tables (--embedding-precision, --arch-sparse-feature-size, --max-ind-range, "
    "--arch-embedding-size)"
)
_QUANTIZED = "the quantized tables beside them (--quantize-emb-with-bit)"
_STATE = "the optimizer's state of the tables (--optimizer)"
_SUMS = "Adagrad's sums of squares, one for each value of the tables (--optimizer)"
_MLPS = "the MLPs (--arch-mlp-bot, --arch-mlp-top)"
_CROSS = "the cross network (--dcn-num-layers, --dcn-low-rank-dim)"
_PAIRS = "the pairs of features (--arch-embedding-size)"
_TRAINING_BATCH = "a training batch (--mini-batch-size, --num-indices-per-lookup)"
_TEST_BATCH = "a test batch (--test-mini-batch-size)"
_SCORES = "the scores and labels of the test split"
_READ_AHEAD = "batches read ahead (--num-workers, --test-num-workers)"
_ACCUMULATED = "accumulated gradients (--mlperf-grad-accum-iter)"
_IDS = "the rows of all ids (--score-text)"
_STREAMS = "random data (--num-batches, --data-size, --mini-batch-size)"

_UNKNOWN = 1 << 62  # bytes of host memory, if the system does not say

# In messages of failed allocations, the last one also of pinned memory.
_ALLOCATION_FAILURES = ("not enough memory", "can't allocate memory", "out of memory")

# Beginnings of the messages of failures on a GPU, and what they contain if this program is at fault.
_GPU_FAILURES = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]")
_GPU_BUGS = (
    "illegal",
    "misaligned",
    "assert",
    "invalid argument",
    "invalid configuration",
    "invalid resource",
    "captur",
)


@dataclass(frozen=True)
class RunSizes:
    """Numbers of samples that bound the batches of a run. test_samples: 0 without a test split.

    known_ids: number of ids whose rows must be known, to score text.
    """

    train_samples: int
    test_samples: int
    known_ids: int = 0

    @classmethod
    def of(cls, settings: Settings, prepared: PreparedData | None) -> RunSizes:
        """Return the sizes of the data that a run reads."""
        data = settings.data
        if prepared is None:
            return cls(data.generated_samples, 0)
        limit = data.num_batches * data.batch_size or prepared.train_rows
        train_rows = min(prepared.train_rows, limit)
        if settings.predictions.text is not None:  # of which a few batches are read at a time
            return cls(train_rows, data.test_batch_size, sum(prepared.counts))
        return cls(train_rows, prepared.rows(settings.split))

    def train_batch(self, settings: Settings) -> int:
        """Return the number of samples of the largest training batch, at least 1."""
        return max(1, min(settings.data.batch_size, self.train_samples))

    def test_batch(self, settings: Settings) -> int:
        """Return the number of samples of the largest test batch; 0 without a test split."""
        return min(settings.data.test_batch_size, self.test_samples)


def require_run_memory(
    settings: Settings, architecture: Architecture, device: torch.device, sizes: RunSizes
) -> None:
    """Raise RunError, naming the flags, if the run needs more memory than the host or the GPU has available."""
    for budget in memory_budgets(settings, architecture, device, sizes):
        require_memory_for(budget.needs, available=budget.available, where=budget.where, savings=budget.savings)


@dataclass(frozen=True)
class MemoryBudget:
    """What a run needs of one kind of memory. available: bytes, None if that is unknown.

    where: text after "memory". savings: ways to need less.
    """

    needs: list[MemoryNeed]
    available: int | None
    where: str = ""
    savings: Sequence[MemorySaving] = ()


def memory_budgets(
    settings: Settings, architecture: Architecture, device: torch.device, sizes: RunSizes
) -> Iterator[MemoryBudget]:
    """Yield what a process of the run needs of the memory of the host and of the GPU."""
    tables, rest = list(_tables(settings, architecture)), list(_rest(settings, architecture, sizes))
    on_host, savings = list(_data(settings, architecture, sizes)), list(_savings(settings, architecture))
    share, where = available_share(current().local_size), ""
    if current().size > 1:
        where = f" in each of {current().size} processes"
    if device.type == "cpu":
        yield MemoryBudget([*tables, *rest, *on_host], share, where, savings)
        return
    yield MemoryBudget(on_host, share, where)
    on_gpu = available_on_gpu(device)
    if not uses_torchrec(settings):
        yield MemoryBudget([*tables, *rest], on_gpu, " of the GPU", savings)
        return
    yield MemoryBudget(rest, on_gpu, " of the GPU")
    if share is not None:  # tables may be in host memory, with a cache on the GPU
        where = f" of the GPU and of the host{where}"
        yield MemoryBudget([*tables, *rest, *on_host], on_gpu + share, where, savings)


def memory_for_tables(
    settings: Settings, architecture: Architecture, device: torch.device, sizes: RunSizes
) -> TableMemory:
    """Return the memory that this process has for its part of the tables, when all else has what it needs."""
    on_device = sum(need.size for need in _rest(settings, architecture, sizes))
    on_host = sum(need.size for need in _data(settings, architecture, sizes))
    share = available_share(current().local_size)
    host = _UNKNOWN if share is None else share
    if device.type == "cpu":
        return TableMemory(0, max(0, host - on_host - on_device))
    return TableMemory(max(0, available_on_gpu(device) - on_device), max(0, host - on_host))


def _savings(settings: Settings, architecture: Architecture) -> Iterator[MemorySaving]:
    """Yield what tables in 16 bits and one sum for each row would save, if this run can have them."""
    if architecture.compression is None and not settings.quantization.requested:
        halved = replace(architecture, embedding_precision="bf16")
        saved = table_bytes(architecture) - table_bytes(halved)
        if saved and not uses_torchrec(settings):
            yield MemorySaving("--embedding-precision=bf16", saved)
    optimizer = settings.training.optimizer
    if optimizer == "adagrad" and not settings.inference_only:
        saved = _of_process(_state_bytes(optimizer, architecture) - _state_bytes("rwsadagrad", architecture))
        yield MemorySaving("--optimizer=rwsadagrad, another optimizer than the benchmark's,", saved)


def available_on_gpu(device: torch.device) -> int:
    """Return the bytes that this process can still use on a GPU: those free and those PyTorch keeps for reuse."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


@contextmanager
def resource_failures() -> Iterator[None]:
    """Turn a failed allocation, a failed GPU, or a thread that cannot be started into a RunError.

    A GPU fails because of its memory, its driver, another process, or a build of PyTorch without code for it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = (str(error).strip() or "MemoryError").splitlines()[0]
        if "can't start new thread" in reason:
            raise RunError(f"{reason}: smaller --num-workers, --test-num-workers need fewer") from None
        is_allocation = any(text in reason for text in _ALLOCATION_FAILURES)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or is_allocation:
            raise RunError(
                f"not enough memory: {reason}; smaller --mini-batch-size, --test-mini-batch-size, "
                "--mlperf-grad-accum-iter, --num-workers or a smaller model need less"
            ) from None
        if not reason.startswith(_GPU_FAILURES) or any(text in reason for text in _GPU_BUGS):
            raise
        raise RunError(f"the GPU failed: {reason}") from None


def table_bytes(architecture: Architecture) -> int:
    """Return the bytes of the embedding tables and of their pooling weights."""
    rows = sum(architecture.rows_per_table)
    pooling = 0 if architecture.weighted_pooling is None else 4 * rows
    if architecture.compression is not None:
        return pooling + compressed_bytes(
            architecture.rows_per_table, architecture.feature_size, architecture.compression
        )
    return pooling + ROW_TYPES[architecture.embedding_precision].itemsize * rows * architecture.feature_size


def checkpoint_bytes(settings: Settings, architecture: Architecture) -> int:
    """Return the bytes of a checkpoint: tables, other weights, and the state of the optimizer."""
    optimizer: type[Optimizer] = load(OPTIMIZERS[settings.training.optimizer])
    layers = [
        a * b + b for widths in (architecture.mlp_bot, top_widths(architecture)) for a, b in pairwise(widths)
    ]
    dense = sum(layers)
    if architecture.has_cross_network:
        dense += architecture.cross_layers * top_widths(architecture)[0] * (2 * architecture.cross_rank + 1)
    state = _state_bytes(settings.training.optimizer, architecture)
    return table_bytes(architecture) + state + 4 * (1 + optimizer.state_per_weight) * dense


def _of_process(size: int) -> int:
    """Return what a process has at least of the `size` bytes of all tables: one of them has as much or more."""
    return -(-size // current().size)


def _tables(settings: Settings, architecture: Architecture) -> Iterator[MemoryNeed]:
    """Yield what this process needs for the tables, before it is known which parts of them it has."""
    yield MemoryNeed(_TABLES, _of_process(table_bytes(architecture)))
    bits = settings.quantization.embedding_bits
    if bits != 32 and architecture.compression is None:
        rows = sum(architecture.rows_per_table)
        values = rows * architecture.feature_size
        yield MemoryNeed(_QUANTIZED, values * bits // 8 + 8 * rows)  # minimum and step of each row
    if not settings.inference_only:
        optimizer: type[Optimizer] = load(OPTIMIZERS[settings.training.optimizer])
        what = _SUMS if optimizer.state_per_value else _STATE
        yield MemoryNeed(what, _of_process(_state_bytes(settings.training.optimizer, architecture)))


def _rest(settings: Settings, architecture: Architecture, sizes: RunSizes) -> Iterator[MemoryNeed]:
    """Yield what is needed on the device besides the tables."""
    yield from _layers(settings, architecture)
    yield from _computation(settings, architecture, sizes)


def _layers(settings: Settings, architecture: Architecture) -> Iterator[MemoryNeed]:
    trains = not settings.inference_only
    optimizer: type[Optimizer] = load(OPTIMIZERS[settings.training.optimizer])
    state = optimizer.state_per_weight if trains else 0
    layers = [a * b for widths in (architecture.mlp_bot, top_widths(architecture)) for a, b in pairwise(widths)]
    if architecture.has_cross_network:
        weights = 2 * architecture.cross_layers * top_widths(architecture)[0] * architecture.cross_rank
        yield MemoryNeed(_CROSS, 4 * (1 + state) * weights)
    yield MemoryNeed(_MLPS, 4 * ((1 + state) * sum(layers) + (max(layers) if trains else 0)))
    if architecture.interaction_op == "dot":
        features = len(architecture.rows_per_table) + 1
        yield MemoryNeed(_PAIRS, 8 * features * features)


def _state_bytes(optimizer_name: str, architecture: Architecture) -> int:
    """Return the bytes that an optimizer keeps for the tables: float32, whatever the precision of the rows."""
    optimizer: type[Optimizer] = load(OPTIMIZERS[optimizer_name])
    state_bytes = optimizer.state_per_value * table_bytes(replace(architecture, embedding_precision="fp32"))
    if architecture.compression is None:
        state_bytes += 4 * optimizer.state_per_row * sum(architecture.rows_per_table)
    return state_bytes


def _computation(settings: Settings, architecture: Architecture, sizes: RunSizes) -> Iterator[MemoryNeed]:
    """Yield the results of layers that a batch keeps, and the gradients kept over batches."""
    tables, dimension = len(architecture.rows_per_table), architecture.feature_size
    value_bytes = 2 if settings.precision == "bf16" else 4
    interaction = top_widths(architecture)[0]
    if architecture.has_cross_network:
        interaction *= 1 + architecture.cross_layers
    pooled = 4 * tables * dimension
    ids = 8 * sum(architecture.ids_per_table or (1,) * tables)
    if not settings.inference_only:
        batch = current().largest_share(sizes.train_batch(settings))
        widths = sum(architecture.mlp_bot[1:]) + interaction + sum(architecture.mlp_top[:-1])
        yield MemoryNeed(_TRAINING_BATCH, batch * (value_bytes * widths + pooled + ids))
        if settings.training.accumulate > 1:
            summed = min(settings.training.accumulate * batch, sizes.train_samples)
            yield MemoryNeed(_ACCUMULATED, summed * (pooled + ids))
    if settings.inference_only or settings.training.evaluates:
        test_batch = current().largest_share(sizes.test_batch(settings))
        yield MemoryNeed(_TEST_BATCH, test_batch * (value_bytes * interaction + ids))
        yield MemoryNeed(_SCORES, 8 * current().largest_share(sizes.test_samples))


def _data(settings: Settings, architecture: Architecture, sizes: RunSizes) -> Iterator[MemoryNeed]:
    """Yield the batches that wait to be used, and the states from which random batches are drawn."""
    sample = 4 * (architecture.mlp_bot[0] + 1 + len(architecture.rows_per_table))  # as in the binary file
    sample += 4 * sum(architecture.ids_per_table or ())
    if settings.data.generation == "random":
        batches = -(-sizes.train_samples // settings.data.batch_size)
        yield MemoryNeed(_STREAMS, batches * STATE_BYTES)
    rows_ahead = 0
    if settings.data.generation != "dataset":
        rows_ahead = min(sizes.train_samples, 2 * sizes.train_batch(settings))
    elif not settings.inference_only:
        threads = reading_threads(settings, train=True)
        rows_ahead = _rows_ahead(sizes.train_samples, sizes.train_batch(settings), threads)
    if sizes.test_samples and (settings.inference_only or settings.training.evaluates):
        threads = reading_threads(settings, train=False)
        rows_ahead = max(rows_ahead, _rows_ahead(sizes.test_samples, sizes.test_batch(settings), threads))
    yield MemoryNeed(_READ_AHEAD, rows_ahead * sample)
    if sizes.known_ids:
        yield MemoryNeed(_IDS, BYTES_PER_KEY * sizes.known_ids)


def _rows_ahead(samples: int, batch_size: int, threads: int) -> int:
    """Return how many rows of its share this process reads ahead at most."""
    group = max(current().largest_share(batch_size), MIN_GROUP_ROWS)
    return min(current().largest_share(samples), 2 * threads * group)
