"""--load-weights: initial weights from a NumPy archive."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import GOLDEN, read_events, run_program
from small_runs import SHAPE, TRAIN, train

from mlperf.data.npz_members import opened_archive
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.models.make import make_model
from mlperf.settings.model import Architecture
from mlperf.training import initial_weights
from mlperf.training.initial_weights import load_initial_weights
from mlperf.training.weight_names import array_name
from mlperf.util.divided_tensor import DividedTensor, Part
from mlperf.util.errors import RunError

DCNV2 = {"interaction_op": "dcn", "cross_layers": 2, "cross_rank": 3}
MAX_HALF = 65504


def model_of(**chosen: Any) -> DLRM_Net:
    sizes: dict[str, Any] = {"rows_per_table": (5, 7), "dimension": 4, "mlp_bot": (13, 6, 4), "mlp_top": (5, 1)}
    return make_model(Architecture(**{**sizes, **chosen}), torch.device("cpu"))


def arrays(cross: bool = True) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {"emb.0.weight": (5, 4), "emb.1.weight": (7, 4)}
    shapes |= {"bottom.0.weight": (6, 13), "bottom.0.bias": (6,), "bottom.1.weight": (4, 6), "bottom.1.bias": (4,)}
    for layer in range(2 if cross else 0):
        shapes |= {f"cross.{layer}.W": (12, 3), f"cross.{layer}.V": (3, 12), f"cross.{layer}.bias": (12,)}
    shapes |= {
        "top.0.weight": (5, 12 if cross else 7),
        "top.0.bias": (5,),
        "top.1.weight": (1, 5),
        "top.1.bias": (1,),
    }
    stream = np.random.default_rng(1)
    return {name: stream.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def load(folder: Path, model: DLRM_Net, contents: dict[str, Any]) -> str | None:
    """Load `contents` and return the error."""
    path = folder / "weights.npz"
    np.savez(path, **contents)
    try:
        load_initial_weights(path, model)
    except RunError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        return text.removeprefix(f"{path}: ")
    return None


def test_every_array_becomes_the_weight_of_its_layer(tmp_path: Path) -> None:
    model, contents = model_of(**DCNV2), arrays()
    assert load(tmp_path, model, contents) is None
    weights = model.state_dict()
    for name, array in {
        "emb_l.1.weight": "emb.1.weight",
        "bot_l.2.bias": "bottom.1.bias",
        "interaction.V.1.weight": "cross.1.V",
        "interaction.W.0.weight": "cross.0.W",
        "interaction.W.1.bias": "cross.1.bias",
        "top_l.0.weight": "top.0.weight",
        "top_l.2.weight": "top.1.weight",
    }.items():
        np.testing.assert_array_equal(weights[name], contents[array])
    assert len(weights) == len(contents)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("block", [4, 1 << 20])
def test_process_keeps_its_part_of_a_divided_table(
    order: Any, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_weights, "BLOCK_BYTES", block)  # rows and columns are also read one by one
    model, contents = model_of(), arrays(cross=False)
    parts = [
        Part(torch.zeros(3, 4), (1, 0)),
        Part(torch.zeros(5, 2), (0, 2)),
        Part(torch.zeros(1, 1), (4, 3)),
    ]
    model.emb_l[0] = ShardedTable(DividedTensor((5, 4), torch.float32, parts), None)
    table = contents["emb.0.weight"]
    assert load(tmp_path, model, {**contents, "emb.0.weight": np.asarray(table, order=order)}) is None
    for part, expected in zip(parts, (table[1:4], table[:, 2:], table[4:, 3:]), strict=True):
        np.testing.assert_array_equal(part.values, expected)
    table[2, 1] = np.nan
    assert load(tmp_path, model, contents) == "emb.0.weight has NaN or infinite values"


def test_weights_of_dlrm_are_loaded_too(tmp_path: Path) -> None:
    model, contents = model_of(), arrays(cross=False)
    assert load(tmp_path, model, contents) is None
    np.testing.assert_array_equal(model.state_dict()["top_l.0.weight"], contents["top.0.weight"])


def test_arrays_in_column_order_and_compressed_archives_are_read(tmp_path: Path) -> None:
    model, contents = model_of(**DCNV2), arrays()
    contents["cross.0.V"][0, 0] = -0.0
    path = tmp_path / "weights.npz"
    by_column: dict[str, Any] = {name: np.asfortranarray(value) for name, value in contents.items()}
    np.savez_compressed(path, **by_column)
    load_initial_weights(path, model)
    loaded = model.state_dict()["interaction.V.0.weight"].numpy()
    np.testing.assert_array_equal(loaded.view(np.int32), contents["cross.0.V"].view(np.int32))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_tables_in_16_bits_get_the_nearest_values(precision: str, tmp_path: Path) -> None:
    model, contents = model_of(embedding_precision=precision, **DCNV2), arrays()
    assert load(tmp_path, model, contents) is None
    table = model.state_dict()["emb_l.0.weight"]
    torch.testing.assert_close(table, torch.from_numpy(contents["emb.0.weight"]).to(table.dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross.1.bias": None}, "lacks cross.1.bias: --dcn-num-layers, --dcn-low-rank-dim"),
        ({"emb.1.weight": None}, "lacks emb.1.weight: --arch-sparse-feature-size, "),
        (
            {"top.2.bias": np.zeros(1, np.float32)},
            "contains top.2.bias, which this model does not have: --arch-mlp-top",
        ),
        ({"steps": np.zeros(1)}, "contains steps, which this model does not have: allowed are emb.K.weight, "),
        (
            {"cross.0.V": np.zeros((12, 3), np.float32)},
            "cross.0.V is [12, 3] in the file and [3, 12] in this model: --dcn",
        ),
        (
            {"emb.0.weight": np.zeros((6, 4), np.float32)},
            "emb.0.weight is [6, 4] in the file and [5, 4] in this model: ",
        ),
        ({"bottom.0.bias": np.zeros(6)}, "bottom.0.bias is <f8, must be float32 (<f4)"),
        ({"bottom.0.bias": np.zeros(6, ">f4")}, "bottom.0.bias is >f4, must be float32 (<f4)"),
        ({"top.1.bias": np.full(1, np.nan, np.float32)}, "top.1.bias has NaN or infinite values"),
        ({"emb.0.weight": np.full((5, 4), -np.inf, np.float32)}, "emb.0.weight has NaN or infinite values"),
        (
            {"top.1.bias": np.array([{}])},
            "cannot read the weights: top.1.bias is an array of object; expected numbers",
        ),
    ],
)
def test_every_difference_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    contents = {**arrays(), **change}
    found = load(
        tmp_path, model_of(**DCNV2), {name: value for name, value in contents.items() if value is not None}
    )
    assert found is not None
    assert found.startswith(message)


def test_values_beyond_float16_are_an_error(tmp_path: Path) -> None:
    contents = {**arrays(), "emb.0.weight": np.full((5, 4), 2 * MAX_HALF, np.float32)}
    found = load(tmp_path, model_of(embedding_precision="fp16", **DCNV2), contents)
    assert found is not None
    assert found.startswith("emb.0.weight has values beyond 65,504")


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    whole = (GOLDEN / "dcnv2" / "initial.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[300] ^= 1  # in the values of the first table
    path = tmp_path / "weights.npz"
    shapes = np.load(GOLDEN / "dcnv2" / "initial.npz")
    rows = tuple(len(shapes[f"emb.{number}.weight"]) for number in range(26))
    sizes = {"rows_per_table": rows, "dimension": 16, "mlp_bot": (13, 32, 16), "mlp_top": (64, 32, 1)}
    model = model_of(interaction_op="dcn", cross_layers=3, cross_rank=24, **sizes)
    path.write_bytes(whole)
    load_initial_weights(path, model)
    for content in (whole[:-1], whole[:5000], bytes(flipped), b"", b"PK"):
        path.write_bytes(content)
        with pytest.raises(RunError, match="cannot read the weights: "):
            load_initial_weights(path, model)


def test_header_is_not_read_if_it_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("emb.0.weight.npy", b"\x93NUMPY\x02\x00" + (1 << 28).to_bytes(4, "little") + bytes(1 << 15))
    problem = r"emb\.0\.weight has a header of 268,435,456 bytes; expected at most 16,384"
    with opened_archive(path, "damaged") as archive, pytest.raises(ValueError, match=problem):
        archive.array("emb.0.weight")


def test_archive_of_very_many_arrays_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(20_000):
            file.writestr(f"{number}.npy", b"")
    started = time.monotonic()
    with pytest.raises(RunError, match=r"lacks emb\.0\.weight"):
        load_initial_weights(path, model_of(**DCNV2))
    assert time.monotonic() - started < 2  # each name compared with each other one: over 5 s


def weights_of(checkpoint: Path, path: Path) -> Path:
    """Write the weights of a checkpoint to an archive."""
    found = torch.load(checkpoint, weights_only=True)["state_dict"]
    contents: dict[str, Any] = {str(array_name(name)): value.numpy() for name, value in found.items()}
    np.savez(path, **contents)
    return path


def test_weights_of_a_checkpoint_give_its_metrics(terabyte: Path, tmp_path: Path) -> None:
    train(terabyte, tmp_path, "--save-model=model.pt", "--num-batches=6")
    path = weights_of(tmp_path / "model.pt", tmp_path / "weights.npz")
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}")
    run = run_program(*flags, f"--load-weights={path}", "--inference-only", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "initial weights" not in run.stderr
    loaded = run_program(*flags, "--load-model=model.pt", "--inference-only", cwd=tmp_path)
    assert run.metric_lines == loaded.metric_lines

    run = run_program(*flags, f"--load-weights={path}", "--mlperf-log-file=x.log", "--num-batches=2", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert [event["metadata"]["started_from"] for event in read_events(tmp_path / "x.log", "run_start")] == [
        "weights"
    ]

    run = run_program(*flags, f"--load-weights={path}", f"--save-model={path}", cwd=tmp_path)
    assert run.status == 2
    assert "--load-weights" in run.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--load-model=m.pt",
            "--load-weights=w.npz cannot be combined with --load-model, which loads all weights",
        ),
        (
            "--weighted-pooling=learned",
            "--load-weights=w.npz cannot be combined with --weighted-pooling, whose weights ",
        ),
        (
            "--qr-flag",
            "--load-weights=w.npz cannot be combined with --qr-flag or --md-flag, whose tables the file ",
        ),
    ],
)
def test_load_weights_is_refused_where_the_file_cannot_have_them(flags: str, message: str, tmp_path: Path) -> None:
    run = run_program("--load-weights=w.npz", flags, cwd=tmp_path)
    assert run.status == 2
    assert message in run.stderr


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    run = run_program("--load-weights=w.npz", cwd=tmp_path)
    assert (run.status, run.stderr) == (1, "dlrm_s_pytorch.py: error: --load-weights=w.npz: no such file\n")
    (tmp_path / "folder").mkdir()
    run = run_program("--load-weights=folder", cwd=tmp_path)
    assert run.status == 2
    assert "--load-weights=folder is a folder without checkpoint.json; must be a sharded checkpoint" in run.stderr
