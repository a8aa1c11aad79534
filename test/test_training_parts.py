"""Schedule, optimizers, interaction, loss: each against its formula or PyTorch's own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.layers.interaction import FeatureInteraction
from mlperf.models.loss import Loss
from mlperf.optim.optimizers import Optimizer
from mlperf.settings.training import ScheduleSettings
from mlperf.training.schedule import learning_rate

CPU = torch.device("cpu")


def test_schedule_follows_its_published_points() -> None:
    schedule = ScheduleSettings(18.0, warmup_steps=4, decay_start_step=6, decay_steps=3)
    expected = [18 * 1 / 4, 18 * 2 / 4, 18 * 3 / 4, 18 * 3 / 4, 18 * 3 / 4]
    expected += [18.0, 18 * (2 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2]
    assert [learning_rate(schedule, step) for step in range(1, 11)] == pytest.approx(expected)


def test_rate_is_never_below_its_least() -> None:
    assert learning_rate(ScheduleSettings(1e-3, 0, 0, 10**6), 999_999) == 1e-7


def test_warm_up_alone_ends_at_the_base_rate() -> None:
    schedule = ScheduleSettings(2.0, warmup_steps=2)
    assert [learning_rate(schedule, step) for step in (1, 2, 3, 100)] == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(("op", "itself"), [("dot", False), ("dot", True), ("cat", False), ("sum", False)])
def test_interaction_follows_its_definition(op: str, itself: bool) -> None:
    bottom, tables = torch.rand(5, 4), torch.rand(5, 3, 4)
    features = [bottom, *tables.unbind(1)]
    if op == "dot":
        pairs = [(i, j) for i in range(4) for j in range(i + itself) if itself or i > 0]
        expected = torch.cat((bottom, torch.stack([(features[i] * features[j]).sum(1) for i, j in pairs], 1)), 1)
    else:
        expected = torch.cat(features, 1) if op == "cat" else torch.stack(features).sum(0)
    found = FeatureInteraction(op, 3, itself, CPU)(bottom, tables)
    torch.testing.assert_close(found, expected)


def test_weighted_cross_entropy_is_the_mean_of_weighted_terms() -> None:
    probability, labels = torch.tensor([[0.2], [0.7], [0.9]]), torch.tensor([[0.0], [1.0], [0.0]])
    expected = (0.5 * -np.log(0.8) + 2.0 * -np.log(0.7) + 0.5 * -np.log(0.1)) / 3
    assert float(Loss("wbce", (0.5, 2.0))(probability, labels)) == pytest.approx(expected, rel=1e-6)


class Plain(nn.Module):
    """The same model as a textbook would write it, weights shared by value, one embedding per table."""

    def __init__(self, model: DLRM_Net) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.EmbeddingBag.from_pretrained(table.weight.detach().clone(), freeze=False, mode="sum")
            for table in model.emb_l
        )
        self.bottom = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(4 + 4 * 3, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid())
        self.bottom.load_state_dict(model.bot_l.state_dict())
        self.top.load_state_dict(model.top_l.state_dict())

    def forward(self, batch: Batch) -> torch.Tensor:
        assert batch.offsets is not None
        starts = [*batch.offsets[:, 0].tolist(), len(batch.indices)]
        pooled = [
            table(batch.indices[start:stop], offsets - start)
            for table, offsets, (start, stop) in zip(
                self.tables, batch.offsets, itertools.pairwise(starts), strict=True
            )
        ]
        probability: torch.Tensor = self.top(torch.cat([self.bottom(batch.dense), *pooled], 1))
        return probability


def random_batch(seed: int, size: int = 6) -> Batch:
    """Return a batch with zero to four ids a sample, ids repeated within it."""
    stream = np.random.default_rng(seed)
    counts = stream.integers(0, 5, (3, size))
    indices = np.concatenate([stream.integers(0, rows, counts[t].sum()) for t, rows in enumerate((7, 2, 5))])
    offsets = np.concatenate(([0], counts.ravel().cumsum()[:-1])).reshape(3, size)
    return Batch(
        torch.from_numpy(stream.random((size, 3)).astype(np.float32)),
        torch.from_numpy(indices),
        torch.from_numpy(offsets),
        torch.from_numpy((stream.random((size, 1)) < 0.5).astype(np.float32)),
    )


def make_model() -> DLRM_Net:
    model = DLRM_Net(Architecture((7, 2, 5), 4, (3, 4), (5, 1), interaction_op="cat"), CPU)
    initialize(model, np.random.RandomState(3), mlp_init="normal", embedding_init="numpy", seed=3)
    return model


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["sgd", "adagrad"])
def test_steps_equal_those_of_a_plain_model_with_pytorchs_optimizer(kind: str, accumulate: int) -> None:
    model = make_model()
    plain = Plain(model)
    ours = Optimizer(kind, model)
    if kind == "sgd":
        theirs: torch.optim.Optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    else:
        theirs = torch.optim.Adagrad(plain.parameters(), lr=0.3)
    loss = Loss("bce", (1.0, 1.0))
    for number in range(12):
        batch = random_batch(number)
        lookup = model.tables.look_up(batch)
        value = loss(model.predict(batch.dense, lookup.pooled), batch.labels)
        value.backward()
        ours.add(lookup)
        expected = nn.functional.binary_cross_entropy(plain(batch), batch.labels)
        expected.backward()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
        if (number + 1) % accumulate == 0:
            ours.step(0.3)
            theirs.step()
            theirs.zero_grad()
    for table, other in zip(model.emb_l, plain.tables, strict=True):
        torch.testing.assert_close(table.weight, other.weight, rtol=1e-4, atol=1e-6)


def test_row_wise_adagrad_follows_its_formula() -> None:
    model = make_model()
    optimizer = Optimizer("rwsadagrad", model)
    accumulator = torch.zeros(14)
    expected = model.tables.weight.clone()
    for number in range(4):
        batch = random_batch(number)
        lookup = model.tables.look_up(batch)
        Loss("bce", (1.0, 1.0))(model.predict(batch.dense, lookup.pooled), batch.labels).backward()
        (found,) = lookup.gradients()
        gradient = torch.zeros_like(expected).index_add_(0, found.rows, found.gradients)
        accumulator += gradient.square().mean(1)
        touched = lookup.rows.unique()
        expected[touched] -= 0.3 * gradient[touched] / (accumulator[touched].sqrt() + 1e-10).unsqueeze(1)
        optimizer.add(lookup)
        optimizer.step(0.3)
        torch.testing.assert_close(model.tables.weight, expected)


def test_state_dict_has_the_names_of_existing_checkpoints() -> None:
    names = set(make_model().state_dict())
    assert names == {f"emb_l.{table}.weight" for table in range(3)} | {
        f"{layer}.{kind}" for layer in ("bot_l.0", "top_l.0", "top_l.2") for kind in ("weight", "bias")
    }
