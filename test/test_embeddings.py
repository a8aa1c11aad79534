"""Embedding tables, also compressed and quantized, against their definitions and PyTorch's autograd."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from dlrm_models import COMPRESSIONS, ROWS, make_batch, make_model
from program import run_program
from torch import nn

from mlperf.models.layers.embedding.compressed_table import MixedDimension, mixed_dimensions
from mlperf.models.layers.embedding.quantized import QuantizedRows
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import Loss
from mlperf.models.reference import ReferenceDLRM
from mlperf.optim.optimizer import make_optimizer


@pytest.mark.parametrize("interaction", ["dot", "dcn"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("weighted", [None, "learned", "fixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_training_equals_reference_model_with_pytorch_optimizer(
    kind: str, optimizer: str, weighted: str | None, several: bool, interaction: str
) -> None:
    model = make_model(kind, weighted, interaction)
    textbook = copy.deepcopy(ReferenceDLRM.of(make_model(kind, weighted, interaction)))
    ours = make_optimizer(optimizer, model)
    theirs: torch.optim.Optimizer
    if optimizer == "sgd":
        theirs = torch.optim.SGD(textbook.parameters(), lr=0.2)
    else:
        theirs = torch.optim.Adagrad(textbook.parameters(), lr=0.2)
    loss = Loss("bce")
    for number in range(6):
        batch = make_batch(number, several)
        lookup = model.look_up(batch)
        value = loss(model.predict(batch.dense, lookup.pooled), batch.labels)
        value.backward()
        ours.add(lookup)
        ours.step(0.2)
        theirs.zero_grad()
        expected = nn.functional.binary_cross_entropy(textbook(*textbook.inputs(batch).values()), batch.labels)
        expected.backward()
        theirs.step()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    others = textbook.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_quotient_and_remainder_are_combined_as_in_the_paper(operation: str) -> None:
    model = make_model(operation)
    batch = make_batch(0, several=False)
    pooled = model.look_up(batch).pooled
    weights = model.state_dict()
    collisions = 3 if operation == "add" else 4
    for sample, row in enumerate(batch.indices[0].tolist()):
        quotient = weights["emb_l.0.weight_q"][row // collisions]
        remainder = weights["emb_l.0.weight_r"][row % collisions]
        expected = {
            "mult": quotient * remainder,
            "add": quotient + remainder,
            "concat": torch.cat((quotient, remainder)),
        }[operation]
        assert torch.equal(pooled[sample, 0], expected)
    assert torch.equal(pooled[:, 1], weights["emb_l.1.weight"][batch.indices[1]])


def test_mixed_dimensions_follow_the_power_rule() -> None:
    # Dimensions of these tables in a published checkpoint.
    rows = (301, 201, 498, 151, 41, 4, 91, 61, 13, 401, 251, 181, 11, 34)
    expected = [4, 5, 4, 5, 8, 16, 6, 7, 11, 4, 5, 5, 12, 8]
    assert mixed_dimensions(rows, 16, MixedDimension(0, 0.3, round_dimensions=False)) == expected
    powers = mixed_dimensions(rows, 16, MixedDimension(0, 0.3, round_dimensions=True))
    assert powers == [4, 4, 4, 4, 8, 16, 8, 8, 8, 4, 4, 4, 16, 8]
    assert mixed_dimensions((4, 4), 12, MixedDimension(0, 0.3, round_dimensions=True)) == [12, 12]
    assert mixed_dimensions((1, 10**9), 2, MixedDimension(0, 0.9, round_dimensions=False)) == [2, 1]
    above = mixed_dimensions(rows, 16, MixedDimension(100, 0.3, round_dimensions=False))
    assert above == [4, 5, 4, 5, 16, 16, 16, 16, 16, 4, 5, 5, 16, 16]


@pytest.mark.parametrize(("bits", "width"), [(8, 16), (4, 16), (4, 5), (8, 1)])
def test_quantized_value_is_within_half_a_step(bits: int, width: int) -> None:
    block = torch.randn(40, width)
    block[3] = 0.25
    rows = QuantizedRows(block, bits)
    index = torch.tensor([3, 39, 0, 3])
    found = rows.index_select(0, index)
    step = (block.amax(1) - block.amin(1)) / (2**bits - 1)
    assert ((found - block[index]).abs() <= 0.5001 * step[index].unsqueeze(1)).all()
    assert torch.equal(found[0], block[3])
    assert rows.nbytes == 40 * ((width * bits + 7) // 8 + 8)


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_tables_of_every_kind_give_nearly_the_same_scores(kind: str, bits: int) -> None:
    model = make_model(kind, "fixed")
    batch = make_batch(1, several=True)
    with torch.no_grad():
        before = model(batch)
        size = model.table_bytes()
        model.tables.quantize(bits)
        torch.testing.assert_close(model(batch), before, rtol=0, atol=0.05 if bits == 4 else 0.005)
    assert model.table_bytes() != size
    assert list(model.row_parameters()) == []  # quantized rows are not trained


FLAGS = [
    "--arch-sparse-feature-size=16",
    "--arch-mlp-top=32-1",
    "--data-generation=dataset",
    "--loss-function=bce",
    "--mini-batch-size=128",
    "--max-ind-range=40000000",
    "--data-set=terabyte",
    "--data-randomize=none",
    "--mlperf-logging",
    "--learning-rate=0.1",
    "--test-freq=20",
]


QR = "--qr-flag --qr-threshold=100 --arch-mlp-bot=13-32-16"
CONCAT = "--qr-flag --qr-threshold=100 --qr-operation=concat --arch-mlp-bot=13-32-32"
MD = "--md-flag --md-threshold=50 --arch-mlp-bot=13-32-16"


@pytest.mark.parametrize(
    ("variant", "optimizer"), [(QR, "sgd"), (CONCAT, "adagrad"), (MD, "adagrad"), (MD, "rwsadagrad")]
)
def test_compressed_model_is_saved_continued_and_evaluated(
    variant: str, optimizer: str, terabyte: Path, tmp_path: Path
) -> None:
    flags = [*FLAGS, *variant.split(), f"--optimizer={optimizer}", f"--processed-data-file={terabyte}"]
    whole = run_program(*flags, "--save-model=m.pt", cwd=tmp_path)
    assert whole.status == 0, whole.stderr
    saving = re.search(
        r"embedding tables: ([\d,]+) parameters, .* without compression ([\d,]+) parameters", whole.stderr
    )
    assert saving
    assert int(saving[1].replace(",", "")) < int(saving[2].replace(",", ""))
    evaluated = run_program(*flags, "--load-model=m.pt", "--inference-only", cwd=tmp_path)
    best = max(whole.metric_lines, key=lambda line: float(re.search(r" auc ([\d.]+)", line)[1]))  # type: ignore[index]
    assert evaluated.metric_lines[0].partition(" best")[0] == best.partition(" best")[0]
    continued = run_program(*flags, "--load-model=m.pt", cwd=tmp_path)
    assert continued.status == 0, continued.stderr
    rest = continued.progress_lines
    assert rest == (whole.progress_lines[-len(rest) :] if rest else [])


def test_error_for_a_checkpoint_with_other_compression_names_the_flag(terabyte: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--arch-mlp-bot=13-32-16", "--arch-mlp-top=32-16-1", "--inference-only"]
    flags.append(f"--processed-data-file={terabyte}")
    model = Path(__file__).parent / "golden" / "terabyte" / "qr.pt"
    run = run_program(*flags, f"--load-model={model}", cwd=tmp_path)
    assert run.status == 1
    assert "--qr-flag" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_rows_drawn_on_the_device_are_uniform_on_both_sides_of_zero() -> None:
    model = make_model(embedding_init="device")
    tables = model.state_dict()
    for number, rows in enumerate(ROWS):
        assert tables[f"emb_l.{number}.weight"].abs().max() <= rows**-0.5
    scaled = tables["emb_l.0.weight"] * ROWS[0] ** 0.5  # 92 values in [-1, 1]
    assert scaled.min() < -0.8
    assert scaled.max() > 0.8
    assert abs(float(scaled.mean())) < 0.2
    again = make_model(embedding_init="device").state_dict()
    assert torch.equal(tables["emb_l.0.weight"], again["emb_l.0.weight"])


@pytest.mark.parametrize("weighted", [None, "learned"])
def test_model_has_the_names_and_the_order_of_existing_checkpoints(weighted: str | None) -> None:
    model = make_model(weighted_pooling=weighted)
    expected = [f"emb_l.{table}.weight" for table in range(3)]
    expected += [f"v_W_l.{table}" for table in range(3)] if weighted else []
    expected += [f"{layer}.{kind}" for layer in ("bot_l.0", "top_l.0", "top_l.2") for kind in ("weight", "bias")]
    assert list(model.state_dict()) == expected
    assert [name for name, _ in model.named_parameters()] == expected
    assert {id(parameter) for parameter in model.emb_l.parameters()} <= {id(one) for one in model.parameters()}


def test_printed_model_shows_the_modules_that_have_weights() -> None:
    assert (
        str(make_model(weighted_pooling="learned"))
        == """DLRM_Net(
  (emb_l): ModuleList(
    (0): EmbeddingBag(23, 4, mode=sum)
    (1): EmbeddingBag(2, 4, mode=sum)
    (2): EmbeddingBag(9, 4, mode=sum)
  )
  (v_W_l): ParameterList(
      (0): Parameter containing: [torch.float32 of size 23]
      (1): Parameter containing: [torch.float32 of size 2]
      (2): Parameter containing: [torch.float32 of size 9]
  )
  (bot_l): Sequential(
    (0): Linear(in_features=3, out_features=4, bias=True)
    (1): ReLU()
  )
  (top_l): Sequential(
    (0): Linear(in_features=10, out_features=5, bias=True)
    (1): ReLU()
    (2): Linear(in_features=5, out_features=1, bias=True)
    (3): Sigmoid()
  )
)"""
    )


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_memory_of_the_tables_equals_that_of_their_parameters(kind: str) -> None:
    model = make_model(kind, "learned")
    stored = [value.nbytes for name, value in model.state_dict().items() if name.startswith(("emb_l", "v_W_l"))]
    assert model.table_bytes() == sum(stored)


@pytest.mark.parametrize("init", ["numpy", "device"])
def test_compressed_tables_are_drawn_from_their_ranges(init: str) -> None:
    bound = ROWS[0] ** -0.5
    weights = make_model("mult", embedding_init=init).state_dict()
    assert bound / 2 < weights["emb_l.0.weight_q"].abs().max() <= bound
    assert 0.5 <= weights["emb_l.0.weight_r"].min() < 0.8
    assert 1.2 < weights["emb_l.0.weight_r"].max() <= 1.5
    weights = make_model("add", embedding_init=init).state_dict()
    assert bound / 2 < weights["emb_l.0.weight_r"].abs().max() <= bound
    weights = make_model("md", embedding_init=init).state_dict()
    assert bound / 2 < weights["emb_l.0.embs.weight"].abs().max() <= bound
    glorot = (6 / (1 + 4)) ** 0.5  # from dimension 1 to 4
    assert glorot / 2 < weights["emb_l.0.proj.weight"].abs().max() <= glorot
    assert weights["emb_l.0.proj.weight"].shape == (4, 1)


def test_predictions_are_clamped_at_the_loss_threshold() -> None:
    model = make_model()  # threshold 0.01
    batch = make_batch(0, several=False)
    last = linear_layers(model.top_l)[-1]
    with torch.no_grad():
        last.bias.fill_(100.0)
        assert torch.equal(model(batch), torch.full((batch.size, 1), 0.99))
        last.bias.fill_(-100.0)
        assert torch.equal(model(batch), torch.full((batch.size, 1), 0.01))
