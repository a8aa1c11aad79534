"""The NumPy implementation of DLRM-DCNv2 on the golden data of the reference implementation."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from dlrm_dcnv2_numpy import Data, Run, lookup_tables, train
from numpy_layers import CrossNetwork, cross_entropy
from program import GOLDEN

FOLDER = GOLDEN / "dcnv2"
EXPECTED = json.loads((FOLDER / "golden.json").read_text())
SIZES = EXPECTED["model"]


@pytest.fixture(scope="module", params=EXPECTED["runs"])
def run(request: pytest.FixtureRequest) -> tuple[str, Run]:
    return request.param, train(FOLDER, EXPECTED, request.param)


def test_losses_and_metrics_are_the_golden_ones(run: tuple[str, Run]) -> None:
    name, found = run
    expected = EXPECTED["runs"][name]
    assert found.losses == pytest.approx(expected["loss"], abs=1e-6)
    assert found.first_logits[:8] == pytest.approx(expected["first_logits"], abs=1e-6)
    for split in ("val", "test"):
        clicks, others = expected[split]["positives"], expected[split]["samples"] - expected[split]["positives"]
        one_pair = 1 / (clicks * others)  # rounding makes different scores equal
        assert found.auc[split] == pytest.approx(expected[split]["auc"], abs=one_pair)
        assert found.logloss[split] == pytest.approx(expected[split]["logloss"], abs=1e-6)


def test_weights_are_the_golden_ones(run: tuple[str, Run]) -> None:
    name, found = run
    with np.load(FOLDER / f"final_{name}.npz") as archive:
        assert set(archive) == set(found.weights)
        for array in archive:
            np.testing.assert_allclose(found.weights[array], archive[array], rtol=0, atol=1e-5)


def test_expanded_ids_are_the_golden_ones() -> None:
    tables = lookup_tables(SIZES["table_rows"], SIZES["multi_hot_sizes"])
    for table, expected in zip(tables, EXPECTED["multi_hot"]["lookup_tables"], strict=True):
        assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest() == expected["sha256"]
    sparse = Data.read(FOLDER / "onehot", [0]).sparse
    with np.load(FOLDER / "multihot" / "day_0_sparse_multi_hot.npz") as archive:
        for number, (table, ids) in enumerate(zip(tables, sparse.T, strict=True)):
            np.testing.assert_array_equal(table[ids % len(table)], archive[str(number)])


def test_gradients_are_the_differences_of_the_loss() -> None:
    stream = np.random.default_rng(1)
    layers = [(stream.normal(size=(2, 5)), stream.normal(size=(5, 2)), stream.normal(size=5)) for _ in range(2)]
    network, x0 = CrossNetwork(layers), stream.normal(size=(4, 5))
    labels = stream.integers(0, 2, (4, 1))

    def loss() -> float:
        return cross_entropy(network.forward(x0).sum(1, keepdims=True), labels)[0]

    _, of_logits = cross_entropy(network.forward(x0).sum(1, keepdims=True), labels)
    of_x0 = network.backward(np.repeat(of_logits, 5, 1))
    for array, gradient in zip([x0, *network.parameters()], [of_x0, *network.gradients], strict=True):
        for index in np.ndindex(array.shape):
            kept, (low, high) = array[index], (0.0, 0.0)
            array[index] = kept - 1e-6
            low = loss()
            array[index] = kept + 1e-6
            high = loss()
            array[index] = kept
            assert gradient[index] == pytest.approx((high - low) / 2e-6, abs=1e-5)
