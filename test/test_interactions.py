"""Feature interactions against their definitions, and their gradients against autograd."""

from __future__ import annotations

import pytest
import torch

from mlperf.models.dlrm import make_interaction
from mlperf.models.layers.interaction import Interaction
from mlperf.models.layers.pairs import pair_count, pair_indices
from mlperf.registry import INTERACTIONS
from mlperf.settings.model import Architecture


def make(name: str, features: int, dimension: int, self_interaction: bool = False) -> Interaction:
    architecture = Architecture(
        rows_per_table=(3,) * (features - 1),
        dimension=dimension,
        interaction_op=name,
        cross_layers=2,
        cross_rank=3,
        interaction_itself=self_interaction,
    )
    return make_interaction(architecture)


@pytest.mark.parametrize("self_interaction", [False, True])
def test_dot_is_the_bottom_output_and_the_products_row_by_row(self_interaction: bool) -> None:
    bottom, tables = torch.rand(5, 4), torch.rand(5, 3, 4)
    features = [bottom, *tables.unbind(1)]
    pairs = [(i, j) for i in range(4) for j in range(i + self_interaction)]
    expected = torch.cat((bottom, torch.stack([(features[i] * features[j]).sum(1) for i, j in pairs], 1)), 1)
    torch.testing.assert_close(make("dot", 4, 4, self_interaction)(bottom, tables), expected)


def test_cat_is_the_features_one_after_the_other() -> None:
    bottom, tables = torch.rand(5, 4), torch.rand(5, 3, 4)
    assert torch.equal(make("cat", 4, 4)(bottom, tables), torch.cat((bottom, *tables.unbind(1)), 1))


def test_sum_is_the_sum_of_the_features() -> None:
    bottom, tables = torch.rand(5, 4), torch.rand(5, 3, 4)
    torch.testing.assert_close(make("sum", 4, 4)(bottom, tables), torch.stack((bottom, *tables.unbind(1))).sum(0))


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_every_interaction_has_the_width_and_the_gradient_of_its_reference(
    name: str, self_interaction: bool
) -> None:
    interaction = make(name, 4, 6, self_interaction).double()
    inputs = [torch.rand(5, 6, dtype=torch.float64), torch.rand(5, 3, 6, dtype=torch.float64)]
    first = [tensor.clone().requires_grad_() for tensor in inputs]
    second = [tensor.clone().requires_grad_() for tensor in inputs]
    found, expected = interaction(*first), interaction.reference(*second)
    assert found.shape == (5, interaction.out_features)
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_cross_network_is_its_definition() -> None:
    network = make("dcn", 4, 6)
    bottom, tables = torch.rand(5, 6), torch.rand(5, 3, 6)
    weights = network.state_dict()
    first = crossed = torch.cat((bottom, tables.flatten(1)), 1)
    for layer in range(2):
        down = torch.einsum("rn,bn->br", weights[f"V.{layer}.weight"], crossed)
        up = torch.einsum("nr,br->bn", weights[f"W.{layer}.weight"], down) + weights[f"W.{layer}.bias"]
        crossed = first * up + crossed
    torch.testing.assert_close(network(bottom, tables), crossed)


@pytest.mark.parametrize("name", ["dot", "cat", "sum"])
def test_interactions_without_weights_add_nothing_to_the_state_dict(name: str) -> None:
    assert not make(name, 4, 6).state_dict()


@pytest.mark.parametrize("self_interaction", [False, True])
def test_pair_count_equals_the_number_of_pairs(self_interaction: bool) -> None:
    for features in range(1, 30):
        i, j = pair_indices(features, self_interaction=self_interaction)
        assert pair_count(features, self_interaction=self_interaction) == len(i) == len(j)
