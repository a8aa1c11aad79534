"""No path mixes tensors of a model on a device with tensors in host memory, which fails on a GPU.

A second device stands for the GPU (test/second_device.py): it computes what the CPU does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from dlrm_models import COMPRESSIONS, make_batch, make_model
from second_device import DEVICE, DeviceTensor, MixedDevicesError, SecondDevice

from mlperf.data.batch import Batch
from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.autograd.step import AutogradStep
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.models.reference import ReferenceDLRM
from mlperf.optim.optimizer import make_optimizer
from mlperf.plots.compute_graph import make_graph
from mlperf.plots.model_figures import last_hidden_layer, table_rows
from mlperf.registry import OPTIMIZERS
from mlperf.reporting.debug import DebugReport
from mlperf.training import checkpoint
from mlperf.training.events import Outcome, Position
from mlperf.training.state import TrainingState

CPU = torch.device("cpu")
METRICS = Metrics(accuracy=0.5, recall=0.5, precision=0.5, f1=0.5, average_precision=0.5, auc=0.5)
Found = TypeVar("Found")


def on_both(run: Callable[[torch.device], Found]) -> list[Found]:
    """Return the results of `run` on the CPU and on the second device."""
    with SecondDevice():
        return [run(device) for device in (CPU, DEVICE)]


def host_values(model: DLRM_Net) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}


@dataclasses.dataclass(frozen=True)
class Batches:
    """Five batches as a data source. several: several ids per table."""

    several: bool = False
    batches_per_epoch: int = 5
    samples: int = 30

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        return (make_batch(seed, self.several) for seed in range(first, self.batches_per_epoch))


def test_second_device_refuses_what_a_gpu_refuses() -> None:
    with SecondDevice() as device:
        there, here = torch.arange(3.0, device=DEVICE), torch.arange(3)
        for mixed in (lambda: there + here, lambda: there.index_select(0, here), lambda: here.add_(there.long())):
            with pytest.raises(MixedDevicesError):
                mixed()
        assert isinstance(there * here.sum(), DeviceTensor), "a number in host memory is allowed"
        assert (there + here.to(DEVICE)).cpu().tolist() == [0, 2, 4]
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        with pytest.raises(MixedDevicesError):
            torch.zeros(()).add_(there.sum())
        before = device.waits
        assert float(there.sum()) == 3
        assert device.waits == before + 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("compression", "pooling", "interaction", "precision"),
    [
        *((compression, None, "dot", "fp32") for compression in COMPRESSIONS),
        ("none", "learned", "dot", "bf16"),
        ("none", None, "dot", "fp16"),
        ("mult", "learned", "cat", "fp32"),
        ("none", "fixed", "sum", "fp32"),
        ("none", None, "dcn", "bf16"),
    ],
)
def test_training_stays_on_its_device(
    compression: str, pooling: str | None, interaction: str, precision: str, several: bool, optimizer: str
) -> None:
    def train(device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model = make_model(compression, pooling, interaction, embedding_precision=precision, device=device)
        loss = Loss("bce_logits") if interaction == "dcn" else Loss("wbce", (0.5, 2.0))
        step = AutogradStep(model, loss, make_optimizer(optimizer, model), "fp32")
        step.warm_up(6)
        for number in range(4):
            step.train(make_batch(number, several), None if number % 2 == 0 else 0.1)
        states = step.optimizer.state_dict()["state"]
        kept = {f"{n} {name}": value.cpu() for n, state in states.items() for name, value in state.items()}
        return step.sums.both.cpu(), host_values(model), kept

    (sums, weights, state), found = on_both(train)
    torch.testing.assert_close(found, (sums, weights, state), rtol=1e-6, atol=1e-7)
    assert float(sums[0]) > 0


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("pooling", "interaction", "loss"),
    [(None, "dot", "bce"), ("learned", "dot", "bce"), (None, "dcn", "bce_logits")],
)
def test_step_of_the_general_engine_does_not_wait_for_the_device(
    pooling: str | None, interaction: str, loss: str, several: bool
) -> None:
    with SecondDevice() as device:
        model = make_model("none", pooling, interaction, device=DEVICE)
        step = AutogradStep(model, Loss(loss), make_optimizer("sgd", model), "fp32")
        step.train(make_batch(0, several), 0.1)
        step.score(make_batch(1, several))
        assert device.waits == 0


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("bits", "several"), [(32, False), (8, False), (4, True)])
def test_metrics_of_plain_and_quantized_models_are_those_of_the_cpu(
    compression: str, bits: int, several: bool
) -> None:
    def score(device: torch.device) -> tuple[float, ...]:
        model = make_model(compression, device=device)
        if bits < 32:
            model.tables.quantize(bits)
        metrics = evaluate(AutogradScorer(model, "fp32"), Batches(several), all_metrics=True)
        return (*dataclasses.astuple(metrics)[:6], model.tables.nbytes())

    expected, found = on_both(score)
    assert 0 < expected[5] < 1
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_model_that_is_exported_stays_on_its_device(compression: str, several: bool) -> None:
    def trace(device: torch.device) -> torch.Tensor:
        model = ReferenceDLRM.of(make_model(compression, "learned", device=device))
        inputs = ReferenceDLRM.inputs(make_batch(3, several).to(device))
        probability: torch.Tensor = model(*inputs.values())
        return probability.detach().cpu()

    expected, found = on_both(trace)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_figures_move_only_what_they_draw_to_the_host(compression: str) -> None:
    rows = np.array([0, 5, 22])

    def draw(device: torch.device) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        model = make_model(compression, device=device)
        return table_rows(model, 0, rows), *last_hidden_layer(model, Batches(), 20)

    expected, found = on_both(draw)
    assert [values.shape for values in expected[1:]] == [(20, 5), (20,)]
    for here, there in zip(expected, found, strict=True):
        np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compute_graph_is_that_of_the_cpu(compression: str) -> None:
    pytest.importorskip("pygraphviz")
    expected, found = on_both(lambda device: make_graph(make_model(compression, device=device)).string())
    assert "[23, 4]" in expected or compression != "none"
    assert found == expected


@pytest.mark.parametrize("compression", ["none", "md"])
def test_debug_mode_prints_a_model_on_any_device(compression: str) -> None:
    def print_all(device: torch.device) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            report = DebugReport(make_model(compression, device=device), precision=5, max_batches=2)
            report.data_opened(Batches(), None)
            report.run_stop(Position(0, 5, 5), Outcome.SUCCESS)
        return printed.getvalue()

    expected, found = on_both(print_all)
    assert "updated parameters" in expected
    assert found == expected


@pytest.mark.parametrize("compression", ["none", "md"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("saved_on", "loaded_on"), [(CPU, DEVICE), (DEVICE, CPU)])
def test_checkpoint_of_one_device_is_resumed_on_another(
    saved_on: torch.device, loaded_on: torch.device, optimizer: str, compression: str, tmp_path: Path
) -> None:
    def trained(device: torch.device, epochs: int) -> tuple[AutogradStep, dict[str, torch.Tensor]]:
        model = make_model(compression, "learned", device=device)
        step = AutogradStep(model, Loss("bce"), make_optimizer(optimizer, model), "fp32")
        for number in range(epochs):
            step.train(make_batch(number, several=True), 0.1)
        return step, host_values(model)

    with SecondDevice():
        saved, weights = trained(saved_on, 2)
        checkpoint.save(
            tmp_path / "model.pt",
            model=saved.model,
            optimizer=saved.optimizer,
            state=TrainingState(iteration=2, step=2, samples=12),
            metrics=METRICS,
            epochs=1,
            batches_per_epoch=5,
            test_batches=5,
            seed=1,
        )
        loaded, _ = trained(loaded_on, 0)
        checkpoint.load_weights(tmp_path / "model.pt", loaded.model, optimizer=loaded.optimizer)
        torch.testing.assert_close(host_values(loaded.model), weights, rtol=0, atol=0)
        assert loaded.optimizer.steps == (0 if optimizer == "sgd" else 2)
        for step in (saved, loaded):
            step.train(make_batch(7, several=True), 0.1)
        torch.testing.assert_close(host_values(loaded.model), host_values(saved.model))
