"""Programs on data with columns of its own, from a CSV file to a checkpoint."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from equal_runs import run_on
from own_data import DENSE, LOG_COLUMNS, SEVERAL, flags_of_log, prepared_log, write_log, write_own_data
from processes import in_processes, needs_torchrec
from program import Finished, run_program, verify_data
from small_runs import error_of

from mlperf.data.prepared.verify import file_problems, scan
from mlperf.data.watched_file import WatchedFile

OTHER_SITES = LOG_COLUMNS.replace('[[categorical]]\ncolumn = "user"\ntype = "integer"\n', "")
NO_DENSE = re.sub(r"\[\[dense\]\]\ncolumn[^[]*", "", LOG_COLUMNS)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def checkpoint(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    run = run_program(*flags_of_log(prefix, "--save-model=m.pt", "--nepochs=10"), cwd=folder)
    assert run.status == 0, run.stderr
    return folder / "m.pt"


def usage_error(run: Finished) -> str:
    assert run.status == 2, run.stderr
    return run.stderr.splitlines()[-1]


@needs_torchrec
@in_processes
@pytest.mark.parametrize("model", [("--optimizer=sgd",), ("--arch-interaction-op=dcn", "--learning-rate=0.01")])
def test_losses_are_those_of_any_engine_and_number_of_processes(model: tuple[str, ...], prefix: Path) -> None:
    flags = flags_of_log(prefix, *model, "--mlperf-logging")
    expected = run_on(1, [*flags, "--engine=autograd"])
    assert len(set(expected.losses)) > 2
    for size, engine in ((1, "cpu"), (2, "torchrec")):
        run = run_on(size, [*flags, f"--engine={engine}"])
        assert run.losses == pytest.approx(expected.losses, abs=2e-5)
        assert run.metric_lines == expected.metric_lines


def test_checkpoint_is_resumed_evaluated_and_quantized(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    flags = flags_of_log(prefix, f"--load-model={checkpoint}")
    resumed = run_program(*flags, "--nepochs=12", cwd=tmp_path)
    whole = run_program(*flags_of_log(prefix, "--nepochs=12"), cwd=tmp_path)
    assert resumed.progress_lines[-2:] == whole.progress_lines[-2:]
    evaluated = run_program(*flags, "--inference-only", "--mlperf-logging", cwd=tmp_path)
    auc = re.search(r"auc (0\.\d+)", evaluated.stdout)
    assert auc
    assert float(auc[1]) > 0.7
    quantized = run_program(
        *flags, "--inference-only", "--quantize-emb-with-bit=8", "--quantize-mlp-with-bit=8", cwd=tmp_path
    )
    assert quantized.status == 0, quantized.stderr
    change = re.search(r"change ([+-]0\.\d+)", quantized.stderr)
    assert change
    assert abs(float(change[1])) < 0.01


def test_checkpoint_needs_the_numbering_of_its_training(checkpoint: Path, prefix: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", seed=4)
    other = prepared_log(tmp_path)
    load = (f"--load-model={checkpoint}", "--inference-only")
    error = error_of(run_program(*flags_of_log(other, *load), cwd=tmp_path))
    assert re.search(
        r"was trained with the numbering \w{16} of x\.json, this data has the numbering \w{16} of x", error
    )
    alike = prepared_log(tmp_path, f"--ids-from={prefix}", name="alike")
    assert run_program(*flags_of_log(alike, *load), cwd=tmp_path).status == 0
    assert verify_data(alike, cwd=tmp_path).status == 0


def test_model_that_does_not_fit_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    log, description = write_log(tmp_path / "log.csv"), tmp_path / "log.toml"
    description.write_text(LOG_COLUMNS)
    flags = flags_of_log(
        tmp_path / "x", f"--raw-data-file={log}", f"--columns={description}", "--arch-mlp-bot=3-8"
    )
    error = usage_error(run_program(*flags, cwd=tmp_path))
    assert error.endswith(
        f"--arch-mlp-bot starts with 3, but {description} has 2 dense features: it must start with 2"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "log.toml"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--arch-mlp-bot=13-8",),
            "--arch-mlp-bot starts with 13, but {prefix}_train.bin has 2 dense features: it",
        ),
        (("--data-set=kaggle", "--arch-mlp-bot=13-8"), "{prefix}_train.bin was prepared with columns; pass that"),
        (("--data-set=kaggle",), "but Criteo data has 13 dense features; other data needs --data-set=columns"),
        (
            ("--multi-hot-sizes=1-1-1",),
            "--multi-hot-sizes=1-1-1 cannot be combined with --data-set=columns, whose",
        ),
        (
            ("--max-ind-range=9",),
            "--max-ind-range=9 cannot be combined with --data-set=columns, whose tables have",
        ),
        (("--columns={folder}/other.toml",), "--columns={folder}/other.toml"),
        (
            ("--arch-mlp-bot=2-0-8",),
            "--arch-mlp-bot=2-0-8: only the number of dense features, the first, can be 0",
        ),
    ],
)
def test_flag_that_contradicts_the_data_is_refused_by_name(
    flags: tuple[str, ...], message: str, prefix: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text(OTHER_SITES)
    given = [flag.format(folder=tmp_path) for flag in flags]
    error = usage_error(run_program(*flags_of_log(prefix, *given), cwd=tmp_path))
    assert message.format(prefix=prefix, folder=tmp_path) in error


@pytest.mark.parametrize(
    ("name", "flag"), [("x.toml", "--columns"), ("log.csv", "log.csv"), ("x.ids", "--ids-from")]
)
def test_files_of_the_description_and_of_the_numbering_are_no_outputs(
    name: str, flag: str, prefix: Path, tmp_path: Path
) -> None:
    log, output = prefix.parent / "log.csv", prefix.parent / name
    before = output.read_bytes()
    given = (f"--columns={prefix}.toml", f"--raw-data-file={log}", f"--ids-from={prefix}")
    error = usage_error(run_program(*flags_of_log(tmp_path / "y", *given, f"--save-model={output}"), cwd=tmp_path))
    assert flag in error.replace(f"--save-model={output}", "")
    assert output.read_bytes() == before
    assert not list(tmp_path.glob("y*"))


def test_description_that_agrees_with_the_data_is_accepted(prefix: Path, tmp_path: Path) -> None:
    flags = flags_of_log(prefix, f"--columns={prefix}.toml", f"--raw-data-file={prefix.parent / 'log.csv'}")
    assert run_program(*flags, "--num-batches=1", cwd=tmp_path).status == 0


def test_model_without_dense_features_is_trained(tmp_path: Path) -> None:
    place = prepared_log(tmp_path, columns=NO_DENSE)
    flags = flags_of_log(place, "--arch-mlp-bot=0-12-8", "--save-model=m.pt")
    expected = run_program(*flags, "--engine=autograd", cwd=tmp_path)
    assert expected.status == 0, expected.stderr
    assert run_program(*flags, cwd=tmp_path).losses == pytest.approx(expected.losses, abs=2e-5)
    quantize = ("--quantize-mlp-with-bit=8", "--quantize-emb-with-bit=4")
    run = run_program(*flags[:-1], "--load-model=m.pt", "--inference-only", *quantize, cwd=tmp_path)
    assert run.status == 0, run.stderr


def test_dense_features_of_generated_data_cannot_be_missing(tmp_path: Path) -> None:
    error = usage_error(run_program("--arch-mlp-bot=0-2", cwd=tmp_path))
    assert "--arch-mlp-bot starts with 0, but --data-generation=random has dense features" in error


def test_exported_model_predicts_the_same(prefix: Path, checkpoint: Path, tmp_path: Path) -> None:
    flags = flags_of_log(prefix, f"--load-model={checkpoint}", "--inference-only", "--save-onnx")
    run = run_program(*flags, "--save-predictions=p.npy", "--engine=autograd", cwd=tmp_path)
    assert run.status == 0, run.stderr
    rows = np.fromfile(f"{prefix}_test.bin", "<i4").reshape(-1, 8)
    session = onnxruntime.InferenceSession(tmp_path / "dlrm_s_pytorch.onnx")
    assert [each.name for each in session.get_inputs()] == [
        "dense",
        "offsets",
        "indices_0",
        "indices_1",
        "indices_2",
    ]
    ids = {"indices_0": rows[:, 3:4], "indices_1": rows[:, 4:5], "indices_2": rows[:, 5:]}
    offsets = np.stack([np.arange(len(rows)) * part.shape[1] for part in ids.values()])
    expected = np.load(tmp_path / "p.npy")["probability"]
    found = session.run(
        None,
        {
            "dense": dense_features(rows, prefix),
            "offsets": offsets,
            **{name: np.ascontiguousarray(part, np.int64).ravel() for name, part in ids.items()},
        },
    )[0]
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-6)


def dense_features(rows: np.ndarray, prefix: Path) -> np.ndarray:
    """Return what the model gets: the standardized price and ln(1 + age), 0 for missing ones."""
    values = np.ascontiguousarray(rows[:, 1:3]).view("<f4").astype(np.float64)
    prices = np.fromfile(f"{prefix}_train.bin", "<i4").reshape(-1, 8)[:, 1].copy().view("<f4").astype(np.float64)
    price = (values[:, 0] - np.nanmean(prices)) / np.nanstd(prices)
    return np.nan_to_num(np.stack([price, np.log1p(values[:, 1].clip(0))], 1)).astype(np.float32)


def test_debug_mode_prints_all_ids(prefix: Path, tmp_path: Path) -> None:
    run = run_program(
        *flags_of_log(prefix, "--debug-mode", "--num-batches=1", "--mini-batch-size=2"), cwd=tmp_path
    )
    assert run.status == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("[[[")]
    ids = [[len(sample.split(",")) for sample in table.split("], [")] for table in line[3:-3].split("]], [[")]
    assert ids == [[1, 1], [1, 1], [3, 3]]


def test_figures_of_the_model_are_drawn(prefix: Path, tmp_path: Path) -> None:
    """The flags of the model are in the file of a run."""
    trained = run_program(*flags_of_log(prefix), "--output-dir=run", cwd=tmp_path)
    assert trained.status == 0, trained.stderr
    flags = ("--method=tsne", "--config=run/settings.toml")
    run = run_program(*flags, cwd=tmp_path, program="tools/visualize.py")
    assert run.stderr.endswith("error: --load-model is required: the checkpoint to plot\n")
    run = run_program(*flags, "--load-model=run/model.pt", cwd=tmp_path, program="tools/visualize.py")
    assert run.status == 0, run.stderr
    names = {path.name for path in (tmp_path / "visualization").iterdir()}
    assert names == {"tables.png", "norms.png", "categories.png", "hidden.png"}


def test_prepared_data_is_verified(prefix: Path, tmp_path: Path) -> None:
    run = verify_data(prefix, cwd=tmp_path)
    assert (run.status, run.stdout.splitlines()[-1]) == (0, f"{prefix}: SUCCESS")
    rows = re.search(r"rows per table: ([\d-]+)\nlargest index \+ 1: ([\d-]+)\n", run.stdout)
    assert rows
    assert rows[1] == rows[2] == "6-51-4"
    assert "published" not in run.stdout


@pytest.mark.parametrize(
    ("name", "position", "message"),
    [
        ("x.ids", -1, r"x\.ids: does not match the manifest \(checksum differs\)"),
        ("x.ids", None, r"x\.ids: no such file, but the manifest lists it"),
        ("x_test.bin", 12, r"x_test\.bin: indices of table 0 are \d to 6\d; allowed is 0 to 5"),
    ],
)
def test_damage_is_found(name: str, position: int | None, message: str, prefix: Path, tmp_path: Path) -> None:
    for path in prefix.parent.glob("x*"):
        shutil.copy2(path, tmp_path)
    damaged = tmp_path / name
    if position is None:
        damaged.unlink()
    else:
        content = bytearray(damaged.read_bytes())
        content[position] ^= 64
        damaged.write_bytes(content)
    run = verify_data(tmp_path / "x", cwd=tmp_path)
    assert run.status == 1
    assert re.search(message, run.stderr)


def test_infinite_dense_feature_is_found(tmp_path: Path) -> None:
    prepared = write_own_data(tmp_path, DENSE, SEVERAL)
    stored = np.memmap(prepared.test, "<i4", "r+", shape=(prepared.test_rows, prepared.schema.columns))
    stored[7, 2] = np.float32("-inf").view(np.int32)
    stored.flush()
    facts = scan(WatchedFile(prepared.test), prepared.schema, stores_floats=True)
    assert "1 dense features are infinite" in file_problems(facts, prepared, None, "test")
