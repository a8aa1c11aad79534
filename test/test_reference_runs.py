"""Runs on the files of the DLRM-DCNv2 reference; the splits of evaluations."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from preparations import preparation, read_rows
from program import GOLDEN, Finished, run_program, verify_data
from reference_folders import ONE_HOT, ROWS, SIZES, read_days, tables

from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.dataset import PreparedData
from mlperf.runner.data import open_split, verified_data
from mlperf.settings.from_flags import parse

RAW = GOLDEN / "terabyte" / "day"
EMBEDDING_SIZE = f"--arch-embedding-size={'-'.join(map(str, ROWS))}"
MULTI_HOT = f"--multi-hot-sizes={'-'.join(map(str, SIZES))}"
MODEL = (
    *("--data-generation=dataset", "--data-set=terabyte_dcnv2", "--arch-sparse-feature-size=4"),
    *("--arch-mlp-bot=13-4", "--arch-mlp-top=8-1", "--arch-interaction-op=dcn", "--dcn-low-rank-dim=3"),
    *("--loss-function=bce_logits", "--mini-batch-size=512", "--num-batches=2", "--print-freq=1"),
)


def train(data: Path | str, *flags: str, cwd: Path) -> Finished:
    return run_program(*MODEL, f"--processed-data-file={data}", *flags, cwd=cwd)


def test_expanded_and_stored_ids_train_the_same_model(multi_hot: Path, tmp_path: Path) -> None:
    runs = [
        train(folder, EMBEDDING_SIZE, MULTI_HOT, "--test-freq=2", cwd=tmp_path)
        for folder in (f"{ONE_HOT}/", multi_hot / "day")
    ]
    assert [run.status for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert len(runs[0].losses) == 2
    assert runs[0].losses == runs[1].losses
    assert runs[0].metric_lines == runs[1].metric_lines


def test_tables_are_drawn_before_the_run_into_the_named_file(tmp_path: Path) -> None:
    flags = (EMBEDDING_SIZE, MULTI_HOT, "--multi-hot-tables=ids.npz")
    first, second = train(ONE_HOT, *flags, cwd=tmp_path), train(ONE_HOT, *flags, cwd=tmp_path)
    assert first.losses == second.losses == train(ONE_HOT, EMBEDDING_SIZE, MULTI_HOT, cwd=tmp_path).losses
    with np.load(tmp_path / "ids.npz") as archive:
        assert np.array_equal(archive["20"], tables().table(20))
    (tmp_path / "ids.npz").write_bytes(b"no archive")
    run = train(ONE_HOT, *flags, cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    assert run.stderr.splitlines()[-1].startswith("dlrm_s_pytorch.py: error: ids.npz: cannot read an archive")


def test_run_that_lacks_memory_draws_no_ids(tmp_path: Path) -> None:
    flags = (EMBEDDING_SIZE, MULTI_HOT, "--multi-hot-tables=ids.npz", f"--dcn-low-rank-dim={1 << 24}")
    run = train(ONE_HOT, *flags, "--arch-interaction-op=dcn", "--dcn-num-layers=64", cwd=tmp_path)
    assert run.status == 1
    assert " for the cross network (--dcn-num-layers, --dcn-low-rank-dim)" in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "pass --arch-embedding-size with 26 numbers of rows"),
        (("--max-ind-range=100",), "pass --arch-embedding-size with 26 numbers of rows"),
        (("--arch-embedding-size=4-3-2",), "--arch-embedding-size has 3 numbers, but Criteo data has 26 tables"),
        (
            (EMBEDDING_SIZE, "--max-ind-range=100"),
            "--max-ind-range=100 cannot be combined with --arch-embedding-size",
        ),
        ((EMBEDDING_SIZE, "--data-set=kaggle"), "--data-set=kaggle: .* was prepared with terabyte_dcnv2"),
        ((EMBEDDING_SIZE, "--verify-data"), "--verify-data: .* has no manifest with checksums"),
        (
            (EMBEDDING_SIZE, "--test-freq=2", f"--save-model={ONE_HOT / 'day_3_dense.npy'}"),
            "--save-model=.*day_3_dense.npy of --processed-data-file",
        ),
        (
            (EMBEDDING_SIZE, MULTI_HOT, "--multi-hot-tables=m", "--save-model=m", "--test-freq=1"),
            "--multi-hot-tables",
        ),
        ((EMBEDDING_SIZE, MULTI_HOT, "--multi-hot-tables=none/x.npz"), "--multi-hot-tables=none/x.npz: .* none"),
        (
            (f"--arch-embedding-size={1 << 40}{'-1' * 25}", MULTI_HOT),
            f"{1 << 40} rows, .* allowed are up to {1 << 31}",
        ),
    ],
)
def test_flag_that_does_not_fit_the_files_is_refused(flags: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    run = train(ONE_HOT, *flags, cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert re.search(problem, line), line


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), f"its rows have several ids per table; pass {MULTI_HOT}"),
        ((MULTI_HOT.replace("=3-", "=4-"),), f"its rows have several ids per table; pass {MULTI_HOT}"),
        ((MULTI_HOT, "--multi-hot-distribution=pareto"), "--multi-hot-distribution=pareto: the rows of"),
        ((MULTI_HOT, "--multi-hot-tables=x.npz"), "--multi-hot-tables=x.npz: the rows of"),
    ],
)
def test_flag_that_contradicts_stored_ids_is_refused(
    flags: tuple[str, ...], problem: str, multi_hot: Path, tmp_path: Path
) -> None:
    run = train(multi_hot, EMBEDDING_SIZE, *flags, cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert problem in line


def prepared_for(*flags: str) -> tuple[PreparedData, list[str]]:
    parsed = ["--data-generation=dataset", "--arch-mlp-bot=13-2", "--mini-batch-size=1000", *flags]
    return verified_data(parse(parsed), ["train"]), parsed


def test_data_made_from_text_is_decoded_as_that_of_the_reference(tmp_path: Path) -> None:
    """Both keep the rows of day 23 in their order; its ids are too small to be rounded."""
    prepare(preparation(RAW, tmp_path / "x", data_set="terabyte_dcnv2", max_ind_range=-1))
    prepared, flags = prepared_for(
        "--data-set=terabyte_dcnv2", f"--processed-data-file={tmp_path / 'x'}", "--max-ind-range=200", MULTI_HOT
    )
    dense, ids, labels = read_days(23)
    half = (len(dense) + 1) // 2
    for split, part in (("test", slice(0, half)), ("val", slice(half, None))):
        source = open_split(parse(flags), prepared, split)
        (batch,) = source.batches(0)
        torch.testing.assert_close(batch.dense, torch.from_numpy(dense[part]), rtol=1e-6, atol=1e-6)
        assert np.array_equal(batch.labels, labels[part])
        assert np.array_equal(batch.indices, tables().expand(ids[part]))
        assert source.source.dense.smallest == -3
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 0, run.stderr
    rows = read_rows(tmp_path / "x_test.bin")
    rows[3, 2], rows[4, 15], rows[5, 16] = -4, 1, 10**6
    rows.tofile(tmp_path / "x_test.bin")
    errors = verify_data("x", cwd=tmp_path).stderr
    assert "the dense feature -4; the manifest says at least -3" in errors
    assert "indices of table 1 are 1 to" in errors
    assert "to 1000000; allowed is 2 to 499" in errors


@pytest.mark.parametrize("data_set", ["kaggle", "terabyte"])
def test_ids_of_other_data_sets_are_expanded(data_set: str, kaggle: Path, terabyte: Path) -> None:
    place = kaggle if data_set == "kaggle" else terabyte
    flags = (
        f"--data-set={data_set}",
        f"--processed-data-file={place}",
        "--multi-hot-distribution=pareto",
        MULTI_HOT,
    )
    prepared, parsed = prepared_for(*flags)
    assert prepared.multi_hot is not None
    assert prepared.multi_hot.shape.rows_per_table == prepared.counts
    (batch, *_) = open_split(parse(parsed), prepared, "train").batches(0)
    rows = read_rows(Path(f"{place}_train.bin"))[:1000]
    assert np.array_equal(batch.indices, prepared.multi_hot.expand(rows[:, 14:]))
    torch.testing.assert_close(batch.dense, torch.from_numpy(rows[:, 1:14]).float().log1p())


def test_negative_id_is_invalid_where_ids_are_taken_modulo_the_rows(tmp_path: Path) -> None:
    prepare(preparation(RAW, tmp_path / "x", data_set="terabyte_dcnv2", max_ind_range=-1))
    rows = read_rows(tmp_path / "x_test.bin")
    rows[7, 20] = -5
    (tmp_path / "x.json").unlink()
    np.savez(tmp_path / "x_fea_count.npz", counts=np.full(26, 500))
    rows.tofile(tmp_path / "x_test.bin")
    flags = ("--data-set=terabyte_dcnv2", f"--processed-data-file={tmp_path / 'x'}")
    for expansion in ((), (MULTI_HOT,)):
        prepared, parsed = prepared_for(*flags, *expansion)
        with pytest.raises(Exception, match=r"x_test\.bin: row 8, column 21: index -5 is not in table 6"):
            list(open_split(parse(parsed), prepared, "test").batches(0))


def test_evaluation_of_val_reads_the_second_half_of_the_last_day(
    terabyte: Path, copied: Path, tmp_path: Path
) -> None:
    flags = (
        *(
            "--data-generation=dataset",
            "--data-set=terabyte",
            "--arch-sparse-feature-size=4",
            "--arch-mlp-bot=13-4",
        ),
        *("--arch-mlp-top=4-1", "--inference-only", "--mlperf-logging", "--mini-batch-size=100"),
    )
    val = run_program(*flags, f"--processed-data-file={copied}", "--split=val", cwd=tmp_path)
    assert val.status == 0, val.stderr
    test = run_program(*flags, f"--processed-data-file={copied}", cwd=tmp_path)
    assert val.metric_lines != test.metric_lines
    verified = (f"--processed-data-file={copied}", "--verify-data")
    path = Path(f"{copied}_val.bin")
    status = path.stat()
    rows = read_rows(path)
    np.where(np.arange(40) == 5, rows + 1, rows).astype("<i4").tofile(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run_program(*flags, *verified, cwd=tmp_path).status == 0
    run = run_program(*flags, *verified, "--split=val", cwd=tmp_path)
    assert run.status == 1
    assert "processed_val.bin: damaged: its checksum is" in run.stderr
    for split in ("train", "test"):  # data of another tool, whose test split has these rows
        shutil.copy(f"{terabyte}_{split}.bin", tmp_path / f"other_{split}.bin")
    shutil.copy(f"{terabyte}_val.bin", tmp_path / "other_test.bin")
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", tmp_path)
    other = run_program(*flags, f"--processed-data-file={tmp_path / 'other'}", cwd=tmp_path)
    assert other.metric_lines == val.metric_lines
    run = run_program(*flags, f"--processed-data-file={tmp_path / 'other'}", "--split=val", cwd=tmp_path)
    assert run.status == 1
    assert "other_val.bin: the split val has no rows" in run.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that --reference-files wrote, with a manifest."""
    folder = tmp_path_factory.mktemp("written") / "reference"
    run = run_program(
        *("--data-set=terabyte_dcnv2", "--reference-files", f"--raw-data-file={RAW}"),
        f"--processed-data-file={folder}",
        cwd=folder.parent,
        program="tools/prepare_criteo.py",
    )
    assert run.status == 0, run.stderr
    return folder


def test_manifest_of_files_that_this_program_wrote_is_used(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "x")
    flags = ("--max-ind-range=200", MULTI_HOT)
    run = train(folder, *flags, "--verify-data", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert f"{folder}: 72 files match the checksums in their manifest" in run.stderr
    assert run.losses == train(ONE_HOT, EMBEDDING_SIZE, MULTI_HOT, cwd=tmp_path).losses
    assert verify_data("x", f"--raw-data-file={RAW}", cwd=tmp_path).status == 0
    run = verify_data("x", f"--raw-data-file={RAW}_3", cwd=tmp_path)
    assert (run.status, run.stdout.splitlines()[-1]) == (1, "x: FAILED")
    assert f"must be the prefix {RAW} of day_0 ... day_23, not one of them" in run.stderr
    path = folder / "day_4_dense.npy"
    content, status = bytearray(path.read_bytes()), path.stat()
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    run = train(folder, *flags, "--verify-data", cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    assert "day_4_dense.npy: damaged: its checksum is" in run.stderr
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 1
    assert "x/day_4_dense.npy: damaged: its checksum is" in run.stderr
    os.utime(path)
    run = train(folder, *flags, cwd=tmp_path)
    assert run.status == 1
    assert "day_4_dense.npy: does not match its manifest" in run.stderr


def test_one_of_the_files_is_answered_with_their_folder(tmp_path: Path) -> None:
    for name in ("day_0_dense.npy", "day_23_sparse.npy"):
        file = ONE_HOT / name
        for run in (train(file, f"--raw-data-file={RAW}", cwd=tmp_path), verify_data(file, cwd=tmp_path)):
            assert (run.status, run.stdout) == (2, "")
            assert run.stderr.endswith(
                f"={file} is one of the files of the DLRM-DCNv2 reference; must be their folder: write {ONE_HOT}\n"
            )
