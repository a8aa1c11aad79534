"""`mlperf.load`: a trained model that predicts, in a notebook."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import raw_text
import torch
from preparations import DAYS, preparation, read_rows
from program import run_program
from reference_folders import ONE_HOT, read_days
from small_runs import SHAPE, train
from test_reference_runs import EMBEDDING_SIZE, MULTI_HOT
from test_reference_runs import MODEL as DCNV2

import mlperf
from mlperf.data.prepare.pipeline import prepare
from mlperf.util.errors import DivergedError, RunError, UsageError


@pytest.fixture(scope="module")
def checkpoint(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(terabyte, folder, "--save-model=model.pt", "--mlperf-log-file=train.log")
    return folder / "model.pt"


def arrays_of(path: Path) -> dict[str, npt.NDArray[Any]]:
    rows = read_rows(path)
    return {"dense": rows[:, 1:14], "ids": rows[:, 14:]}


def test_loaded_model_predicts_what_the_program_saves(checkpoint: Path, terabyte: Path, tmp_path: Path) -> None:
    given = (*SHAPE, f"--processed-data-file={terabyte}", f"--load-model={checkpoint}", "--inference-only")
    run = run_program(*given, "--mini-batch-size=64", "--save-predictions=p.npy", "--split=val", cwd=tmp_path)
    assert run.status == 0
    saved = np.load(tmp_path / "p.npy")["probability"]
    model = mlperf.load(checkpoint, data=terabyte, test_mini_batch_size=64)
    predicted = model.predict("val")
    assert predicted.dtype == np.float32
    assert predicted.tolist() == saved.tolist()
    whole = mlperf.load(str(checkpoint), data=str(terabyte)).predict("val")
    np.testing.assert_allclose(whole, saved, atol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_arrays_of_the_prepared_rows_give_the_predictions_of_the_split(
    split: str, checkpoint: Path, terabyte: Path
) -> None:
    model = mlperf.load(checkpoint, data=terabyte)
    arrays = arrays_of(Path(f"{terabyte}_{split}.bin"))
    expected = model.predict(split)
    assert model.predict(arrays).tolist() == expected.tolist()
    as_floats = {"dense": arrays["dense"].astype(float).tolist(), "ids": arrays["ids"].astype(np.uint32)}
    assert model.predict(as_floats).tolist() == expected.tolist()


def test_missing_value_counts_as_0(checkpoint: Path, terabyte: Path) -> None:
    model = mlperf.load(checkpoint, data=terabyte)
    ids = np.zeros((2, 26), int)
    dense = np.array([[0.0] * 13, [np.nan] * 13])
    first, second = model.predict({"dense": dense, "ids": ids})
    assert first == second
    assert len(model.predict({"dense": dense[:0], "ids": ids[:0]})) == 0


def test_metrics_are_those_of_a_run(checkpoint: Path, terabyte: Path) -> None:
    model = mlperf.load(checkpoint, data=terabyte)
    flags = {flag.removeprefix("--").partition("=")[0].replace("-", "_"): flag.partition("=")[2] for flag in SHAPE}
    flags["mlperf_bin_loader"] = "true"
    run = mlperf.run(
        **flags, processed_data_file=terabyte, load_model=checkpoint, inference_only=True, mlperf_logging=True,
        test_mini_batch_size=4096, split="val",
    )  # fmt: skip
    assert model.evaluate("val") == run.metrics
    assert model.evaluate() == model.evaluate("test") != run.metrics


def test_nothing_is_printed(checkpoint: Path, terabyte: Path) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        model = mlperf.load(checkpoint, data=terabyte)
        model.predict("test")
        model.evaluate("test")
    assert (stdout.getvalue(), stderr.getvalue()) == ("", "")


def test_flags_of_the_checkpoint_can_be_replaced_and_others_added(checkpoint: Path, terabyte: Path) -> None:
    model = mlperf.load(checkpoint, data=terabyte, engine="autograd", quantize_emb_with_bit=8)
    assert model.settings.model.architecture.mlp_bot == (13, 16, 8)
    assert model.settings.data.data_set == "terabyte"
    exact = mlperf.load(checkpoint, data=terabyte).predict("test")
    quantized = model.predict("test")
    assert (quantized != exact).any()
    np.testing.assert_allclose(quantized, exact, atol=0.05)
    with pytest.raises(RunError, match="was saved with --activation-function=relu but is loaded with"):
        mlperf.load(checkpoint, data=terabyte, activation_function="tanh")


def test_checkpoint_without_flags_takes_those_that_are_given(
    checkpoint: Path, terabyte: Path, tmp_path: Path
) -> None:
    contents = torch.load(checkpoint, weights_only=True)
    del contents["model_flags"]
    torch.save(contents, tmp_path / "old.pt")
    flags = {"arch_sparse_feature_size": 8, "arch_mlp_bot": "13-16-8", "arch_mlp_top": "16-1"}
    old = mlperf.load(tmp_path / "old.pt", data=terabyte, **flags)
    assert old.predict("val").tolist() == mlperf.load(checkpoint, data=terabyte).predict("val").tolist()
    with pytest.raises(UsageError, match="--arch-mlp-bot"):
        mlperf.load(tmp_path / "old.pt", data=terabyte)


def test_tables_of_terabyte_dcnv2_have_the_rows_of_the_checkpoint(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=3)
    prepare(preparation(tmp_path / "day", tmp_path / "x", data_set="terabyte_dcnv2"))
    flags = ("--data-set=terabyte_dcnv2", "--max-ind-range=3", "--save-model=model.pt", "--test-freq=1")
    run = run_program(
        *("--data-generation=dataset", "--arch-mlp-bot=13-2", "--processed-data-file=x", "--mini-batch-size=20"),
        *flags,
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    model = mlperf.load(tmp_path / "model.pt", data=tmp_path / "x")
    assert model.settings.model.architecture.rows_per_table == (3,) * 26
    arrays = arrays_of(tmp_path / "x_test.bin")
    assert arrays["ids"].max() > 3
    assert model.predict(arrays).tolist() == model.predict("test").tolist()


def test_files_of_the_reference_are_predicted_in_place(multi_hot: Path, tmp_path: Path) -> None:
    saved = ("--save-model=model.pt", "--test-freq=2")
    run = run_program(*DCNV2, EMBEDDING_SIZE, MULTI_HOT, f"--processed-data-file={ONE_HOT}", *saved, cwd=tmp_path)
    assert run.status == 0, run.stderr
    model = mlperf.load(tmp_path / "model.pt", data=ONE_HOT)
    expected = model.predict("val").tolist()
    dense, ids, labels = read_days(23)
    half = (len(labels) + 1) // 2
    assert model.predict({"dense": dense[half:], "ids": ids[half:]}).tolist() == expected
    stored = mlperf.load(tmp_path / "model.pt", data=multi_hot)
    assert stored.predict("val").tolist() == expected
    with pytest.raises(UsageError, match=r"the several ids per table of .* are not taken from arrays"):
        stored.predict({"dense": dense, "ids": ids})
    with pytest.raises(RunError, match="the ids of the data were not kept"):
        stored.predict(multi_hot / "day_0_dense.npy")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"dense": np.zeros((2, 13))}, '^predict: the arrays are \'dense\'; must be "dense" and "ids"$'),
        (
            {"dense": np.zeros((2, 12)), "ids": np.zeros((2, 26), int)},
            r"^predict: dense has dtype float64 and shape \(2, 12\); must be numbers \[N, 13\]$",
        ),
        (
            {"dense": np.zeros((2, 13)), "ids": np.full((2, 26), "a")},
            r"^predict: ids has dtype <U1 and shape \(2, 26\); must be numbers \[N, 26\]$",
        ),
        (
            {"dense": np.zeros((3, 13)), "ids": np.zeros((2, 26), int)},
            "^predict: dense has 3 rows, ids has 2; must be equal$",
        ),
        (
            {"dense": np.full((1, 13), 0.5), "ids": np.zeros((1, 26), int)},
            "^predict: dense: row 1, column 1: 0.5 is not a whole number from -2147483648 to 2147483647$",
        ),
        (
            {"dense": np.zeros((1, 13)), "ids": -np.eye(1, 26, 3)},
            "^predict: ids: row 1, column 4: -1.0 is not a whole number from 0 to 2147483647$",
        ),
        (
            {"dense": np.zeros((1, 13)), "ids": np.where(np.eye(1, 26, 3), np.nan, 0)},
            "^predict: ids: row 1, column 4: nan is not a whole number from 0 to 2147483647$",
        ),
        ({"dense": [[0, 1], [2]], "ids": np.zeros((2, 26), int)}, "^predict: dense: setting an array element"),
        (np.zeros((2, 13)), "^predict: got ndarray; must be train, test, val, the name of a file, or {"),
        ("all", "^predict\\('all'\\): must be train, test, val or the name of a file$"),
    ],
)
def test_wrong_arrays_are_refused_by_name(arrays: Any, message: str, checkpoint: Path, terabyte: Path) -> None:
    model = mlperf.load(checkpoint, data=terabyte)
    with pytest.raises(UsageError, match=message):
        model.predict(arrays)


def test_id_outside_its_table_is_named(checkpoint: Path, terabyte: Path) -> None:
    model = mlperf.load(checkpoint, data=terabyte)
    ids = np.zeros((5, 26), int)
    ids[3, 2] = 10**6
    with pytest.raises(RunError, match=r"^predict: ids: row 4, column 3: index 1000000 is not in table 2"):
        model.predict({"dense": np.zeros((5, 13)), "ids": ids})


def test_diverged_model_does_not_predict(checkpoint: Path, terabyte: Path, tmp_path: Path) -> None:
    contents = torch.load(checkpoint, weights_only=True)
    contents["state_dict"]["top_l.0.bias"][:] = torch.nan
    torch.save(contents, tmp_path / "nan.pt")
    with pytest.raises(DivergedError, match="the model has diverged"):
        mlperf.load(tmp_path / "nan.pt", data=terabyte).predict("test")


def test_wrong_calls_are_refused_by_name(checkpoint: Path, terabyte: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^split: not an argument of load\(\): the methods take the split$"):
        mlperf.load(checkpoint, data=terabyte, split="val")
    with pytest.raises(UsageError, match=r"^save_onnx: not an argument of load\(\): mlperf.run takes it$"):
        mlperf.load(checkpoint, data=terabyte, save_onnx=True)
    with pytest.raises(UsageError, match=r"^batch: unknown flag$"):
        mlperf.load(checkpoint, data=terabyte, batch=3)
    with pytest.raises(RunError, match=f"^{tmp_path}/none.pt: "):
        mlperf.load(tmp_path / "none.pt", data=terabyte)
    with pytest.raises(RunError, match=f"Is a directory without checkpoint.json; {checkpoint} is a file"):
        mlperf.load(checkpoint.parent, data=terabyte)
    with pytest.raises(RunError, match=f"^{tmp_path}/none: no prepared data found"):
        mlperf.load(checkpoint, data=tmp_path / "none")
    with pytest.raises(UsageError, match=r"^data: the name is empty"):
        mlperf.load(checkpoint, data="")
    with pytest.raises(UsageError, match="must be one of train, test, val"):
        mlperf.load(checkpoint, data=terabyte).evaluate("all")
