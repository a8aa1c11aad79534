"""--verify-data: damage that keeps the size and the modification time of a file is found before a run."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import pytest
from easy_data import write_easy_data
from package_maker import SYSTEM, make
from program import GOLDEN, Finished, read_events, run_program
from small_runs import SHAPE, TRAIN, error_of

from mlperf.benchmarks import DLRM_DCNV2
from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.reference.preparation import prepare_reference_files
from mlperf.data.prepared.verify import verify_checksums
from mlperf.settings.dataset import PreparationSettings
from mlperf.submission.run_inputs import RunInputs
from mlperf.submission.verified_data import DataVerification
from mlperf.util.crc32 import file_crc32
from mlperf.util.errors import RunError
from mlperf.util.files import sync


def flip_a_bit(path: Path) -> None:
    """Change the last dense feature of a row, which stays a valid row, and restore the time of the file."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[160 * 7 + 4 * 13] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def train(prefix: Path, cwd: Path, *flags: str) -> Finished:
    return run_program(*SHAPE, *TRAIN, f"--processed-data-file={prefix}", *flags, cwd=cwd)


@pytest.mark.parametrize("split", ["train", "test"])
def test_damage_is_found_before_the_run(split: str, copied: Path, tmp_path: Path) -> None:
    path = Path(f"{copied}_{split}.bin")
    flip_a_bit(path)
    run = train(copied, tmp_path, "--verify-data", "--save-model=m.pt")
    assert run.status == 1
    assert f"{path}: damaged: its checksum is" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert not (tmp_path / "mlperf_dlrm.log").exists()
    assert not (tmp_path / "m.pt").exists()
    assert train(copied, tmp_path).status == 0  # only size and time are compared


def test_split_that_the_run_does_not_read_is_not_verified(copied: Path, tmp_path: Path) -> None:
    flip_a_bit(Path(f"{copied}_val.bin"))
    assert train(copied, tmp_path, "--verify-data").status == 0
    flip_a_bit(Path(f"{copied}_train.bin"))
    assert train(copied, tmp_path, "--verify-data", "--inference-only").status == 0
    flip_a_bit(Path(f"{copied}_test.bin"))
    assert error_of(train(copied, tmp_path, "--verify-data", "--inference-only"))


@pytest.mark.parametrize("dropped", ["true", "false"])
def test_verified_run_is_the_same_run(dropped: str, copied: Path, tmp_path: Path) -> None:
    plain = train(copied, tmp_path, f"--mlperf-cache-cleared={dropped}", "--mlperf-log-file=a.log")
    flags = (f"--mlperf-cache-cleared={dropped}", "--mlperf-log-file=b.log", "--verify-data")
    verified = train(copied, tmp_path, *flags)
    assert verified.stdout == plain.stdout
    for split in ("train", "test"):
        assert f"{copied}_{split}.bin: matches the checksum in its manifest" in verified.stderr
    keys = [[event["key"] for event in read_events(tmp_path / name)] for name in ("a.log", "b.log")]
    assert keys[0] == keys[1]


def test_data_without_checksums_is_not_verified(tmp_path: Path) -> None:
    prefix = write_easy_data(tmp_path)
    run = train(prefix, tmp_path, "--verify-data")
    assert run.status == 2
    assert run.stderr.endswith("easy_train.bin was prepared by another tool and has no manifest with checksums\n")
    run = run_program("--verify-data", cwd=tmp_path)
    assert run.status == 2
    assert "--verify-data requires --data-generation=dataset" in run.stderr


def test_submission_is_not_made_with_damaged_data(copied: Path, tmp_path: Path) -> None:
    flip_a_bit(Path(f"{copied}_train.bin"))
    run = make("--submitter=Ours", "--system=box", *SYSTEM, cwd=tmp_path, DATADIR=str(tmp_path), CONFIG="cpu")
    assert run.status == 1
    assert "processed_train.bin: damaged: its checksum is" in run.stderr.splitlines()[-1]
    assert "run 1 of" not in run.stdout


def test_data_of_a_submission_is_verified_once_when_it_is_prepared(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    verification = DataVerification(RunInputs(str(data), ""))
    verification.before_run()
    assert capsys.readouterr().out == "the data is not verified yet: this run prepares it\n"
    for path in tmp_path.glob("processed*"):
        shutil.move(path, data)
    verification.before_run()
    assert capsys.readouterr().out == f"the data matches the checksums in {data / 'processed.json'}\n"
    flip_a_bit(data / "processed_train.bin")
    verification.before_run()
    assert capsys.readouterr().out == ""
    with pytest.raises(RunError, match="damaged"):
        DataVerification(RunInputs(str(data), "")).before_run()
    (data / "processed.json").unlink()
    DataVerification(RunInputs(str(data), "")).before_run()
    assert "the data is not verified: no manifest" in capsys.readouterr().out


def test_reference_files_of_a_submission_are_verified_if_they_have_a_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, text = tmp_path / "data", GOLDEN / "terabyte" / "day"
    prepare_reference_files(PreparationSettings("terabyte_dcnv2", text, data, reference_files=True))
    inputs = RunInputs(str(data), "", DLRM_DCNV2)
    DataVerification(inputs).before_run()
    assert capsys.readouterr().out == f"the data matches the checksums in {data / 'reference_files.json'}\n"
    flip_a_bit(data / "day_3_dense.npy")
    with pytest.raises(RunError, match=r"day_3_dense\.npy: damaged"):
        DataVerification(inputs).before_run()
    (data / "reference_files.json").unlink()
    DataVerification(inputs).before_run()
    assert "the data is not verified: no manifest" in capsys.readouterr().out


@pytest.mark.parametrize("left_over", ["processed.preparation/", "._processed_train.bin"])
def test_left_over_files_do_not_prevent_the_verification_of_a_submission(
    left_over: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / left_over).mkdir() if left_over.endswith("/") else (tmp_path / left_over).touch()
    DataVerification(RunInputs(str(tmp_path), "")).before_run()
    assert capsys.readouterr().out == f"the data matches the checksums in {tmp_path / 'processed.json'}\n"


@pytest.mark.parametrize("size", [0, 1, (1 << 22) - 1, 1 << 22, (3 << 22) + 5])
def test_checksum_of_a_file_is_the_same_on_several_cores(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    assert file_crc32(tmp_path / "x") == zlib.crc32(content)
    assert file_crc32(tmp_path / "x", size // 3, size - size // 5) == zlib.crc32(
        content[size // 3 : size - size // 5]
    )


def is_cached(path: Path, offset: int) -> bool:
    """Return whether a byte of a file is in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def test_verification_of_a_timed_run_leaves_nothing_in_the_page_cache(copied: Path) -> None:
    prepared = open_prepared(copied)
    assert prepared is not None
    offsets = range(0, prepared.train.stat().st_size, 100_000)
    verify_checksums(prepared, ["train"])
    try:
        if not all(is_cached(prepared.train, offset) for offset in offsets):
            pytest.skip("the page cache is short of memory")
    except OSError:
        pytest.skip("the file system does not tell what is in the page cache")
    sync(prepared.train)  # what is not on the disk yet stays in the cache
    verify_checksums(prepared, ["train"], drop_cache=True)
    assert not any(is_cached(prepared.train, offset) for offset in offsets)
