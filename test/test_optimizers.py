"""Optimizers against PyTorch or their formula, and the format of their state."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from dlrm_models import make_batch, make_model, train_steps
from torch import nn

from mlperf.models.loss import Loss
from mlperf.models.reference import ReferenceDLRM
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.util.errors import RunError

PYTORCHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", PYTORCHS)
def test_steps_equal_pytorch_optimizer_on_the_reference_model(name: str, accumulate: int) -> None:
    model = make_model()
    textbook = ReferenceDLRM.new(model.architecture)
    textbook.load_state_dict(model.state_dict())
    ours = make_optimizer(name, model)
    theirs = PYTORCHS[name](textbook.parameters(), lr=0.3)
    for number in range(12):
        batch = make_batch(number, several=True)
        lookup = model.look_up(batch)
        loss = Loss("bce")(model.predict(batch.dense, lookup.pooled), batch.labels)
        loss.backward()
        ours.add(lookup)
        expected = nn.functional.binary_cross_entropy(textbook(*textbook.inputs(batch).values()), batch.labels)
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        if (number + 1) % accumulate == 0:
            ours.step(0.3)
            theirs.step()
            theirs.zero_grad()
    torch.testing.assert_close(dict(model.state_dict()), dict(textbook.state_dict()), rtol=1e-4, atol=1e-6)


def test_row_wise_adagrad_follows_its_formula() -> None:
    model = make_model()
    optimizer = make_optimizer("rwsadagrad", model)
    (rows,) = model.row_parameters()
    sums = torch.zeros(len(rows.values))
    expected = rows.values.clone()
    for number in range(4):
        batch = make_batch(number, several=True)
        lookup = model.look_up(batch)
        Loss("bce")(model.predict(batch.dense, lookup.pooled), batch.labels).backward()
        (found,) = lookup.gradients()
        gradient = torch.zeros_like(expected).index_add_(0, found.rows, found.gradients)
        sums += gradient.square().mean(1)
        touched = found.rows.unique()
        expected[touched] -= 0.3 * gradient[touched] / (sums[touched].sqrt() + 1e-10).unsqueeze(1)
        optimizer.add(lookup)
        optimizer.step(0.3)
        torch.testing.assert_close(rows.values, expected)


@pytest.mark.parametrize("compression", ["none", "mult", "md"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_continues_exactly_from_a_saved_state(name: str, compression: str) -> None:
    model = make_model(compression, "learned")
    optimizer = make_optimizer(name, model)
    train_steps(model, optimizer, range(3))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    train_steps(model, optimizer, range(3, 6))
    continued = make_model(compression, "learned")
    continued.load_state_dict(weights)
    other = make_optimizer(name, continued)
    other.load_state_dict(state, "saved.pt")
    train_steps(continued, other, range(3, 6))
    assert all(torch.equal(value, continued.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", PYTORCHS)
def test_state_has_the_format_of_the_pytorch_optimizer(name: str) -> None:
    model = make_model()
    optimizer = make_optimizer(name, model)
    train_steps(model, optimizer, range(2))
    saved = optimizer.state_dict()
    (group,) = saved["param_groups"]
    parameters = list(model.parameters())
    assert group["params"] == list(range(len(parameters)))
    theirs = PYTORCHS[name](parameters, lr=0.3).param_groups[0]
    assert {key: value for key, value in group.items() if key != "params"} == {
        key: theirs[key] for key in group if key != "params"
    }
    sums = {number: kept["sum"].shape for number, kept in saved["state"].items()}
    expected = {number: parameter.shape for number, parameter in enumerate(parameters)}
    assert sums == (expected if name == "adagrad" else {})


def test_adagrad_counts_steps_like_pytorch() -> None:
    model = make_model()
    optimizer = make_optimizer("adagrad", model)
    train_steps(model, optimizer, range(2))
    continued = make_optimizer("adagrad", model)
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()), "saved.pt")
    train_steps(model, continued, range(3))
    steps = [kept["step"] for kept in continued.state_dict()["state"].values() if "step" in kept]
    assert steps == [5.0] * len(model.dense_parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_declared_sizes_are_those_of_the_state(name: str) -> None:
    model = make_model()
    optimizer = make_optimizer(name, model)
    tables = list(model.emb_l.parameters())
    kept = sum(value.numel() for _, state in optimizer.row_state() for value in state.values())
    values, rows = sum(table.numel() for table in tables), sum(len(table) for table in tables)
    assert kept == optimizer.state_per_value * values + optimizer.state_per_row * rows
    kept = sum(value.numel() for _, state in optimizer.dense_state() for value in state.values())
    assert kept == optimizer.state_per_weight * sum(weight.numel() for weight in model.dense_parameters())


def test_row_wise_adagrad_saves_one_accumulator_per_row_under_its_published_name() -> None:
    model = make_model(weighted_pooling="learned")
    state = make_optimizer("rwsadagrad", model).state_dict()["state"]
    rows = [len(weight) for name, weight in model.state_dict().items() if name.startswith("emb_l.")]
    assert [tuple(state[number]["momentum"].shape) for number in range(6)] == [(count,) for count in 2 * rows]
    assert set(state[6]) == {"step", "sum"}


def test_state_of_another_optimizer_is_refused() -> None:
    saved = make_optimizer("sgd", make_model()).state_dict()
    with pytest.raises(RunError, match=r"saved\.pt: contains no state of Adagrad.*--optimizer"):
        make_optimizer("adagrad", make_model()).load_state_dict(saved, "saved.pt")


@pytest.mark.parametrize(
    ("saved", "loading", "tensors"),
    [("adagrad", "sgd", "sum"), ("rwsadagrad", "sgd", "sum"), ("adagrad", "rwsadagrad", "sum")],
)
def test_state_that_an_optimizer_does_not_keep_is_refused(saved: str, loading: str, tensors: str) -> None:
    state = make_optimizer(saved, make_model()).state_dict()
    optimizer = make_optimizer(loading, make_model())
    with pytest.raises(RunError, match=rf"saved\.pt: contains the state of another optimizer .*\({tensors}\)"):
        optimizer.load_state_dict(state, "saved.pt")


def test_momentum_is_refused_and_its_empty_entries_are_not() -> None:
    model = make_model()
    optimizer = make_optimizer("sgd", model)
    saved = optimizer.state_dict()
    saved["state"] = {number: {"momentum_buffer": None} for number, _ in enumerate(model.parameters())}
    optimizer.load_state_dict(saved, "saved.pt")
    saved["state"] = {number: {"momentum_buffer": weight} for number, weight in enumerate(model.parameters())}
    with pytest.raises(RunError, match="another optimizer than SGD"):
        optimizer.load_state_dict(saved, "saved.pt")
