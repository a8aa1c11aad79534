"""The metrics of several processes: those of one process, equal on all, without one that gets all scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import in_processes, needs_torchrec, with_ranks
from second_device import DeviceTensor, SecondDevice

from mlperf.distributed.processes import current
from mlperf.evaluation.evaluate import metrics_of_run
from mlperf.evaluation.metrics import Metrics
from mlperf.util.errors import DivergedError

pytestmark = [in_processes, needs_torchrec]


KINDS = (
    *("many", "ties", "equal scores", "smallest and largest scores", "no click", "only clicks"),
    *("a NaN", "a score above 1"),
)

# The metrics of each way to divide the samples, by kind of samples.
Found = dict[str, list[Metrics | str]]


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = np.random.default_rng(5)
    scores = stream.beta(1, 8, count).astype(np.float32)
    labels = (stream.random(count) < 2 * scores).astype(np.float32)
    return torch.from_numpy(scores), torch.from_numpy(labels)


def samples(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and labels by what is special about them."""
    scores, labels = drawn(300_000 if kind == "many" else 2003)  # pairs of many samples exceed 32 bits
    change: dict[str, Callable[[], object]] = {
        "ties": lambda: scores.mul_(20).round_().div_(20),
        "equal scores": lambda: scores.fill_(0.25),
        "smallest and largest scores": lambda: scores.copy_(
            torch.tensor([0.0, -0.0, 1e-45, 1.1754944e-38, 0.5, 1.0]).repeat(400)[: len(scores)]
        ),
        "no click": labels.zero_,
        "only clicks": lambda: labels.fill_(1),
        "a NaN": lambda: scores[7].fill_(math.nan),
        "a score above 1": lambda: scores[-1].fill_(1.5),
    }
    change.get(kind, lambda: None)()
    return scores, labels


def in_shares(
    kind: str, *, all_metrics: bool = True, put: Callable[[torch.Tensor], torch.Tensor] = torch.clone
) -> list[Metrics | str]:
    """Return the metrics of shares of about equal size, of all samples on rank 0, and of all on the last rank.

    put: puts a tensor on a device.
    """
    scores, labels = samples(kind)
    count, own = len(scores), current()
    first, size = own.share(count)
    shares = [
        slice(first, first + size),
        slice(0, count if own.is_first else 0),
        slice(0, count if own.rank == own.size - 1 else 0),
    ]
    return [metrics_or_error(put(scores[share]), put(labels[share]), all_metrics=all_metrics) for share in shares]


def all_in_shares(*, all_metrics: bool = True) -> Found:
    """Return the metrics of `in_shares` by kind."""
    return {kind: in_shares(kind, all_metrics=all_metrics) for kind in KINDS}


def all_in_shares_on_device() -> Found:
    """As `all_in_shares`, but the scores are on a second device, where all computations must stay."""
    reduce, exchange = dist.all_reduce, dist.all_to_all_single

    def reduce_through_host(values: torch.Tensor) -> None:
        on_host = values.cpu()
        reduce(on_host)
        values.copy_(on_host)

    def exchange_through_host(
        result: torch.Tensor, values: torch.Tensor, received: list[int], sent: list[int]
    ) -> None:
        on_host = result.cpu()
        exchange(on_host, values.cpu(), received, sent)
        result.copy_(on_host)

    with (
        SecondDevice(),
        mock.patch.object(dist, "get_backend", return_value="nccl"),
        mock.patch.object(dist, "all_reduce", reduce_through_host),
        mock.patch.object(dist, "all_to_all_single", exchange_through_host),
    ):
        return {kind: in_shares(kind, put=DeviceTensor) for kind in KINDS}


def metrics_or_error(scores: torch.Tensor, labels: torch.Tensor, *, all_metrics: bool) -> Metrics | str:
    try:
        return metrics_of_run(scores, labels, all_metrics=all_metrics)
    except DivergedError as error:
        return str(error)


def assert_those_of_one_process(by_rank: Sequence[Found], *, all_metrics: bool = True) -> None:
    first, *others = by_rank
    assert list(first) == list(KINDS)
    for kind, of_shares in first.items():
        expected = metrics_or_error(*samples(kind), all_metrics=all_metrics)
        for found in of_shares:
            assert_equal_metrics(found, expected, kind)
    for other in others:
        assert repr(other) == repr(first)


def assert_equal_metrics(found: Metrics | str, expected: Metrics | str, kind: str) -> None:
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected, kind
        return
    for name in ("accuracy", "recall", "precision", "f1", "auc", "only_label"):
        value, other = getattr(found, name), getattr(expected, name)
        assert value == other or (math.isnan(value) and math.isnan(other)), (kind, name)
    assert found.average_precision == pytest.approx(expected.average_precision, rel=1e-14, nan_ok=True), kind


@pytest.mark.parametrize("size", [2, 3])
def test_metrics_of_several_processes_are_those_of_one(size: int) -> None:
    assert_those_of_one_process(with_ranks(size, all_in_shares))


def test_metrics_on_a_device_are_those_of_one_process() -> None:
    assert_those_of_one_process(with_ranks(2, all_in_shares_on_device))


def test_accuracy_alone_is_that_of_one_process() -> None:
    assert_those_of_one_process(with_ranks(2, all_in_shares, all_metrics=False), all_metrics=False)


def received_scores() -> int:
    """Return how many scores of others and its own this process gets to sort."""
    scores, labels = drawn(100_000)
    first, size = current().share(len(scores))
    with mock.patch.object(dist, "all_to_all_single", wraps=dist.all_to_all_single) as exchange:
        metrics_of_run(scores[first : first + size], labels[first : first + size], all_metrics=True)
    return len(exchange.call_args.args[0])


def test_each_process_sorts_about_an_equal_part_of_the_scores() -> None:
    received = with_ranks(3, received_scores)
    assert sum(received) == 100_000
    assert max(received) < 1.02 * 100_000 / 3
